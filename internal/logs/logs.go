// Package logs keeps what containers print: append, rotate, read, follow. The
// shim writes with it, the daemon reads; neither needs the other to run.
//
//	w, err := logs.NewWriter(l)
//	err = w.Write(logs.Stdout, time.Now(), chunk) // a read of the pipe, as it came
//
//	r, err := logs.Open(ctx, l, logs.ReadOptions{Stdout: true, Tail: -1})
//	_, err = r.WriteTo(conn)
//
// Two formats: "local", chunks with a 16-byte header each (see frame.go), and
// "json-file", docker's own, for programs that read the file by its path.
package logs

import (
	"io"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// The streams, numbered as in docker's multiplexed frames.
const (
	Stdout byte = 1
	Stderr byte = 2
)

// The drivers.
const (
	DriverLocal    = "local"
	DriverJSONFile = "json-file"
	DriverNone     = "none"
)

// Writer appends to a container's log; safe for concurrent use. Close flushes
// what is held back (json-file: an unfinished line).
type Writer interface {
	// Write records bytes read from a stream at one time; p may hold many lines
	// or part of one, and is not kept.
	Write(stream byte, at time.Time, p []byte) error
	Close() error
}

// ReadOptions chooses what of a log is wanted.
type ReadOptions struct {
	Stdout, Stderr bool
	Since, Until   time.Time // zero: unbounded
	Tail           int       // the last n lines; negative: all
	Timestamps     bool
	Details        bool // json-file's attributes before each line

	// Follow goes on with what is written, until Done is closed (the container
	// has ended) and everything was read, or the context ends.
	Follow bool
	Done   <-chan struct{}

	TTY bool // raw bytes; otherwise docker's multiplexed frames
	// Lines gives each line a frame of its own, as docker does, for clients that
	// take a frame for a line; without, frames are large and few.
	Lines bool
	// JSON gives each line an object of its own (see jsonLine), whatever TTY and
	// Timestamps are; RS writes RFC 7464's separator before each.
	JSON, RS bool
}

// Reader is an opened log; it writes itself to a client once.
type Reader interface {
	io.WriterTo
	io.Closer
}

// NewWriter opens a log for appending. What a crash left half-written at its
// end is cut off.
func NewWriter(l runtime.Log) (Writer, error) {
	size, files := l.MaxSize, l.MaxFiles
	switch l.Driver {
	case DriverNone:
		return discard{}, nil
	case DriverLocal, "":
		if size == 0 {
			size = defaultMaxSize
		}
		if files == 0 {
			files = defaultMaxFiles
		}
		return newLocalWriter(l.Path, size, files, l.Compress, newHold(l))
	case DriverJSONFile:
		return newJSONWriter(l.Path, size, files, l.Compress, l.Attrs)
	}
	return nil, errs.Newf(errs.Invalid, "logger: no log driver named '%s' is registered", l.Driver)
}

type discard struct{}

func (discard) Write(byte, time.Time, []byte) error { return nil }
func (discard) Close() error                        { return nil }
