package apiserver

import (
	"bufio"
	"net/http"
)

// stream sends a body of unknown length. The headers go out with the first
// byte, so that a verb which fails before can still answer with a status.
type stream struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	buf     *bufio.Writer // nil: every write goes out at once
	ctype   string
	started bool
}

// newStream returns a stream that sends each write at once, for what a person
// or program waits for.
func newStream(w http.ResponseWriter, ctype string) *stream {
	return &stream{w: w, rc: http.NewResponseController(w), ctype: ctype}
}

// newBulkStream returns a stream for much data: finish sends the rest.
func newBulkStream(w http.ResponseWriter, ctype string) *stream {
	s := newStream(w, ctype)
	s.buf = bufio.NewWriterSize(w, 64<<10)
	return s
}

// start sends the headers now.
func (s *stream) start() {
	s.begin()
	_ = s.rc.Flush()
}

func (s *stream) begin() {
	if s.started {
		return
	}
	s.started = true
	s.w.Header().Set("Content-Type", s.ctype)
	s.w.WriteHeader(http.StatusOK)
}

func (s *stream) Write(p []byte) (int, error) {
	s.begin()
	if s.buf != nil {
		return s.buf.Write(p)
	}
	n, err := s.w.Write(p)
	if err == nil {
		err = s.rc.Flush()
	}
	return n, err
}

// finish ends the stream of a verb that returned err: before the first byte it
// is the answer; after, the caller must cut the connection with it.
func (s *stream) finish(err error) error {
	if err != nil {
		return err
	}
	s.begin()
	if s.buf != nil {
		_ = s.buf.Flush()
	}
	return nil
}

// fullDuplex lets progress go out while the request's body still comes in:
// without, net/http first reads the whole body.
func fullDuplex(w http.ResponseWriter) {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 always is
}
