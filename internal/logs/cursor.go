package logs

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// taker gets the records that a cursor comes across.
type taker interface {
	emit(r *record) error
	flush() error // for now there is no more
	whole()       // all that was there at the start was read
}

// cursor goes forward through a log's files.
type cursor struct {
	r      *reader
	e      taker
	until  int64 // records after it are not read
	format format
	buf    []byte
	at     position

	// last and end are the end of the log when it was opened, where a reader
	// that does not follow stops.
	last *segment
	end  int64

	final bool // a newer file exists: what at.seg holds now is all of it
	watch *watch
	slept time.Time
}

func (c *cursor) close() {
	if c.at.seg != c.last {
		c.at.seg.close()
	}
	c.watch.close()
}

// copy writes everything from c.at on, until the log ends or the reader does.
func (c *cursor) copy() error {
	ended := !c.r.o.Follow
	for {
		if err := c.r.ctx.Err(); err != nil {
			return err
		}
		progress, past, err := c.step()
		switch {
		case err != nil:
			return err
		case past: // all that is still to come is after Until
			return c.e.flush()
		case progress:
			continue
		case c.atEnd():
			return c.e.flush()
		}
		moved, err := c.advance()
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		if err := c.e.flush(); err != nil || ended {
			return err
		}
		c.e.whole()
		ended = !c.wait()
	}
}

// atEnd reports whether a reader that does not follow has all it came for.
func (c *cursor) atEnd() bool {
	return !c.r.o.Follow && c.at.seg.id == c.last.id && c.at.seg.packed == nil
}

// step reads and emits one piece of the present file; without progress, there
// is no more for now.
func (c *cursor) step() (progress, past bool, err error) {
	want := len(c.buf)
	if c.atEnd() {
		want = int(min(int64(want), max(0, c.end-c.at.off)))
	}
	n, err := c.at.seg.f.ReadAt(c.buf[:want], c.at.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, false, fmt.Errorf("read log: %w", err)
	}
	if n == 0 {
		return false, false, c.checkTruncated()
	}
	err = nil
	done := c.format.decode(c.buf[:n], c.at.off, func(rec *record) bool {
		if c.at.skip > 0 { // --tail starts within this record
			rec.data, rec.cont = rec.data[min(c.at.skip, len(rec.data)):], false
			c.at.skip = 0
			if len(rec.data) == 0 {
				return true
			}
		}
		if rec.at > c.until {
			past = true
			return false
		}
		err = c.e.emit(rec)
		return err == nil
	})
	if err != nil {
		return false, false, err
	}
	if done == 0 && n == len(c.buf) && !past {
		if len(c.buf) >= maxRecord {
			return false, false, fmt.Errorf("read log: no end of the line at byte %d", c.at.off)
		}
		c.buf = make([]byte, 2*len(c.buf))
		return true, false, nil
	}
	c.at.off += int64(done)
	return done > 0, past, nil
}

// checkTruncated starts over in a file that somebody emptied.
func (c *cursor) checkTruncated() error {
	size, err := c.at.seg.size()
	if err == nil && size < c.at.off {
		c.at.off = 0
	}
	return err
}

// advance goes to the next file, if there is one and the present one is read to
// its end.
func (c *cursor) advance() (bool, error) {
	next, err := c.r.files.newer(c.at.seg)
	if err != nil || next == nil {
		return false, err
	}
	if !c.final { // it may have grown before it was rotated
		next.close()
		c.final = true
		return true, nil
	}
	if c.at.seg != c.last {
		c.at.seg.close()
	}
	c.watch.close()
	c.watch = nil
	c.final = false
	c.at = position{seg: next}
	return true, nil
}
