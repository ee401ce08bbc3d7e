package build

import (
	"io"
	"os"
	"sync"
	"time"

	bkexec "github.com/moby/buildkit/executor"
)

// streams connects a process's descriptors with BuildKit's readers and writers.
type streams struct {
	child  [3]*os.File // the process's ends; closed by start
	stdin  *os.File    // our end; nil: none
	reads  []*os.File  // ends that copies read from
	copies []func()
	wg     sync.WaitGroup
	in     io.ReadCloser
}

func newStreams(p bkexec.ProcessInfo) (_ *streams, err error) {
	s := &streams{in: p.Stdin}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if p.Stdin != nil { // else the launcher gives it a null device that is safe to have
		if s.child[0], s.stdin, err = os.Pipe(); err != nil {
			return nil, err
		}
	}
	outs := []io.Writer{writer(p.Stdout), writer(p.Stderr)}
	if p.Meta.Tty {
		outs = outs[:1] // a terminal has one output
	}
	for i, w := range outs {
		r, c, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.child[i+1] = c
		s.reads = append(s.reads, r)
		s.copies = append(s.copies, func() {
			if _, err := io.Copy(w, r); err != nil {
				// Nobody listens any more; the process must not block on it.
				_, _ = io.Copy(io.Discard, r)
			}
		})
	}
	return s, nil
}

// writer replaces a missing stream by one that takes everything.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// start begins to copy; the process has its ends by now.
func (s *streams) start() {
	s.closeChild()
	for _, c := range s.copies {
		s.wg.Go(c)
	}
	if s.stdin == nil {
		return
	}
	go func() { // ends with its reader, not with the process
		_, _ = io.Copy(s.stdin, s.in)
		_ = s.stdin.Close()
	}()
}

// drainGrace is how long output may still come after a process has ended. With
// a container's first process its pid namespace ends, so nobody holds the
// streams any longer; children of an exec may.
const drainGrace = 5 * time.Second

// drain waits until all that the process printed was copied.
func (s *streams) drain() {
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drainGrace):
		s.closeReads()
		<-done
	}
}

func (s *streams) closeReads() {
	for _, f := range s.reads {
		_ = f.Close()
	}
}

func (s *streams) closeChild() {
	for _, f := range s.child {
		if f != nil {
			_ = f.Close()
		}
	}
	s.child = [3]*os.File{}
}

func (s *streams) close() {
	s.closeChild()
	if s.in != nil {
		_ = s.in.Close()
	}
	if s.stdin != nil {
		_ = s.stdin.Close()
	}
	s.closeReads()
}
