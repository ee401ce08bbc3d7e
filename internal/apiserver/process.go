package apiserver

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/pkg/stdcopy"

	"github.com/skiff-containers/skiff/internal/engine/containers"
)

// Of the process protocol, an addition of ours: docs/api.md says what it is.
const (
	processProto = "skiff-process"
	processType  = "application/vnd.skiff.process-stream"
	execIDHeader = "Skiff-Exec-Id"
	frameExit    = 16 // the last frame: docker's kinds are 0 to 3
)

// exit is what the last frame holds.
type exit struct {
	ExitCode *int // null: not known, as of a process that only closed its streams
}

// connectProcess joins the client with a session as connect does, with all
// output in frames, and tells how the process ended in the last one.
func (s *Server) connectProcess(w http.ResponseWriter, r *request, sess containers.Session, stdin bool, ended func(context.Context) (*int, error)) error {
	return s.join(w, r, sess, stdin, processProto, processType, func(c io.Writer) error {
		var out io.Writer = c
		if sess.TTY() { // the others come in frames
			out = frames{c}
		}
		if _, err := io.Copy(out, sess); err != nil {
			return err
		}
		code, err := ended(r.Context())
		if err != nil {
			return err
		}
		text, err := json.Marshal(exit{code})
		if err != nil {
			return err
		}
		return writeFrame(c, frameExit, text)
	})
}

// frames writes a terminal's output as frames of standard output.
type frames struct{ io.Writer }

func (f frames) Write(p []byte) (int, error) {
	if err := writeFrame(f.Writer, byte(stdcopy.Stdout), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func writeFrame(w io.Writer, kind byte, p []byte) error {
	b := make([]byte, 8, 8+len(p))
	b[0] = kind
	binary.BigEndian.PutUint32(b[4:], uint32(len(p))) //nolint:gosec // a read's length
	_, err := w.Write(append(b, p...))
	return err
}
