package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"sort"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

const (
	readSize = 4 * blockSize
	// maxRecord bounds a line of a json-file that is not ours.
	maxRecord = 16 << 20
)

// format decodes one of the file formats; see localFormat.decode.
type format interface {
	decode(b []byte, off int64, f func(*record) bool) int
}

func (r *reader) newFormat() format {
	if r.json {
		return &jsonFormat{}
	}
	return localFormat{}
}

// Open prepares to read a log, which may not exist yet. The reader ends with
// ctx.
func Open(ctx context.Context, l runtime.Log, o ReadOptions) (Reader, error) {
	switch l.Driver {
	case DriverLocal, "", DriverJSONFile:
	case DriverNone:
		return nil, errs.New(errs.Unsupported, "configured logging driver does not support reading")
	default:
		return nil, errs.Newf(errs.Invalid, "logger: no log driver named '%s' is registered", l.Driver)
	}
	ctx, cancel := context.WithCancel(ctx)
	return &reader{
		ctx: ctx, cancel: cancel, o: o, log: l, json: l.Driver == DriverJSONFile, files: chain{l.Path},
	}, nil
}

type reader struct {
	ctx    context.Context //nolint:containedctx // a reader lives as long as its request
	cancel context.CancelFunc
	o      ReadOptions
	log    runtime.Log
	json   bool
	files  chain
}

// Close ends a WriteTo that is under way.
func (r *reader) Close() error { r.cancel(); return nil }

// counting tells how much went out.
type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// WriteTo writes what was asked for.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	out := &counting{w: w}
	err := r.run(newEmitter(out, &r.o, r.log.Attrs))
	if err != nil && r.ctx.Err() != nil {
		err = r.ctx.Err()
	}
	return out.n, err
}

// position is a place to start from.
type position struct {
	seg  *segment
	off  int64
	skip int  // bytes of the first record that are left out
	cut  bool // something was left out before
}

func (r *reader) run(e *emitter) error {
	last, err := r.awaitNewest(e.until)
	if last == nil {
		return err
	}
	defer last.close()
	end, err := last.size()
	if err != nil {
		return err
	}
	at, err := r.start(e, last, end)
	if err != nil {
		return err
	}
	if at.cut {
		e.cut()
	}
	c := &cursor{r: r, e: e, until: e.until, at: at, last: last, end: end, format: r.newFormat()}
	defer c.close()
	size := int64(readSize)
	if c.atEnd() { // a short log needs no more than it has
		size = min(size, max(0, end-at.off)+1)
	}
	c.buf = make([]byte, size)
	return c.copy()
}

// awaitNewest opens the current file; a reader that follows waits until there is
// one. Nil: there will be none.
func (r *reader) awaitNewest(until int64) (*segment, error) {
	for more := r.o.Follow; ; {
		last, err := r.files.newest()
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		if last != nil {
			return last, nil
		}
		if !more {
			return nil, r.ctx.Err()
		}
		more = r.pause(nil, 20*time.Millisecond, until)
	}
}

// start finds where to begin. The segment it returns is open beside last.
func (r *reader) start(e *emitter, last *segment, end int64) (position, error) {
	if r.o.Tail == 0 {
		return position{seg: last, off: end, cut: true}, nil
	}
	if r.o.Tail > 0 {
		return r.tail(e, last, end, r.o.Tail)
	}
	if e.since == math.MinInt64 {
		seg, err := r.files.oldest()
		if err != nil || seg != nil {
			return position{seg: seg}, err
		}
		return position{seg: last}, nil
	}
	at := last
	for {
		before, err := r.files.older(at)
		if err != nil {
			return position{}, err
		}
		if before == nil || before.mod.UnixNano() < e.since {
			before.close()
			return r.bisect(e, at)
		}
		if at != last {
			at.close()
		}
		at = before
	}
}

// bisect finds the last block that may hold the time asked for.
func (r *reader) bisect(e *emitter, seg *segment) (position, error) {
	at := position{seg: seg}
	if r.json {
		return at, nil
	}
	size, err := seg.size()
	if err != nil {
		return at, err
	}
	var h [frameHeader]byte
	n := sort.Search(int((size+blockSize-1)/blockSize), func(i int) bool {
		if _, err := seg.f.ReadAt(h[:], int64(i)*blockSize); err != nil {
			return true
		}
		_, _, _, t, ok := parseHeader(h[:])
		return !ok || t >= e.since
	})
	if n > 0 {
		at.off = int64(n-1) * blockSize
	}
	return at, nil
}

// tail walks back from the end until it has seen the start of the n-th line
// from there.
func (r *reader) tail(e *emitter, last *segment, end int64, n int) (position, error) {
	seg, hi := last, end
	for {
		for hi > 0 {
			lo, b, err := r.window(seg, hi)
			if err != nil {
				return position{}, err
			}
			starts := lineStarts(e, r.newFormat(), b, lo)
			if len(starts) >= n {
				at := starts[len(starts)-n]
				at.seg, at.cut = seg, true
				return at, nil
			}
			n -= len(starts)
			hi = lo
		}
		before, err := r.files.older(seg)
		if err != nil {
			return position{}, err
		}
		if before == nil || before.mod.UnixNano() < e.since {
			before.close()
			return position{seg: seg}, nil
		}
		if hi, err = before.size(); err != nil {
			before.close()
			return position{}, err
		}
		if seg != last {
			seg.close()
		}
		seg = before
	}
}

// window reads the records that end at hi: a block, or as many lines.
func (r *reader) window(seg *segment, hi int64) (lo int64, b []byte, err error) {
	if err := r.ctx.Err(); err != nil {
		return 0, nil, err
	}
	for size := int64(blockSize); ; size *= 2 {
		lo = (hi - 1) / blockSize * blockSize
		if r.json {
			lo = max(0, hi-size)
		}
		b = make([]byte, hi-lo)
		n, err := seg.f.ReadAt(b, lo)
		if err != nil && err != io.EOF {
			return 0, nil, err
		}
		b = b[:n]
		if !r.json || lo == 0 {
			return lo, b, nil
		}
		i := bytes.IndexByte(b, '\n')
		if i >= 0 && i+1 < len(b) {
			return lo + int64(i) + 1, b[i+1:], nil
		}
		if size > maxRecord {
			return lo, b, nil
		}
	}
}

func lineStarts(e *emitter, f format, b []byte, off int64) (out []position) {
	f.decode(b, off, func(rec *record) bool {
		if !e.wants(rec) {
			return true
		}
		if !rec.cont {
			out = append(out, position{off: rec.off})
		}
		for i := 0; ; {
			n := bytes.IndexByte(rec.data[i:], '\n') + 1
			if i += n; n == 0 || i == len(rec.data) {
				return true
			}
			out = append(out, position{off: rec.off, skip: i})
		}
	})
	return out
}
