package logs

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// Piece is a part of a log as it was read from the container: many lines or part
// of one.
type Piece struct {
	Stream byte
	At     time.Time
	Data   []byte // valid until Take returns
	End    Mark   // behind it, without a state
}

// Taker gets a log piece by piece. An error of its ends the feed.
type Taker interface {
	Take(p Piece) error
	// Idle tells that all there is for now was taken; now and then again while
	// nothing comes.
	Idle() error
}

// Feed gives a taker what a local log has gained since a mark, over rotations,
// until done is closed (the container has ended) and everything was taken, or
// the context ends. If what the mark names was rotated away, it starts with the
// oldest there is.
func Feed(ctx context.Context, l runtime.Log, from Mark, done <-chan struct{}, t Taker) error {
	if l.Driver != DriverLocal {
		return errs.Newf(errs.Internal, "a log of driver %q cannot be sent on", l.Driver)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &reader{ctx: ctx, cancel: cancel, o: ReadOptions{Follow: true, Done: done}, log: l, files: chain{l.Path}}
	last, err := r.awaitNewest(math.MaxInt64)
	if last == nil {
		return err
	}
	defer last.close()
	at, err := r.resume(from, last)
	if err != nil {
		return err
	}
	f := &feed{t: t}
	f.c = cursor{r: r, e: f, until: math.MaxInt64, at: at, last: last, format: localFormat{}, buf: make([]byte, blockSize)}
	defer f.c.close()
	return f.c.copy()
}

// resume opens the place of a mark.
func (r *reader) resume(m Mark, last *segment) (position, error) {
	if m.file != (fileID{}) {
		seg, err := r.files.open(func(l []entry) int { return place(l, &segment{id: m.file}) })
		if err != nil {
			return position{}, fmt.Errorf("open log: %w", err)
		}
		if seg != nil {
			// Shorter than it was: the machine went down before all of it was on the disk.
			size, err := seg.size()
			return position{seg: seg, off: min(m.off, size)}, err
		}
	}
	seg, err := r.files.oldest()
	if err == nil && seg == nil {
		seg = last
	}
	return position{seg: seg}, err
}

type feed struct {
	c cursor
	t Taker
}

func (f *feed) emit(r *record) error {
	end := Mark{file: f.c.at.seg.was, off: r.off + frameHeader + int64(len(r.data))}
	return f.t.Take(Piece{Stream: r.stream, At: r.time(), Data: r.data, End: end})
}

func (f *feed) flush() error { return f.t.Idle() }
func (f *feed) whole()       {}
