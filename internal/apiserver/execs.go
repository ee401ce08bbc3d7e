package apiserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func execRoutes() []route {
	return []route{
		{"POST", "/containers/{id}/exec", write | endless, 0, (*Server).execCreate},
		{"POST", "/exec/{id}/start", write | endless, 0, (*Server).execStart},
		{"POST", "/exec/{id}/resize", write, 0, (*Server).execResize},
		{"GET", "/exec/{id}/json", read, 0, (*Server).execInspect},
	}
}

func (s *Server) execCreate(w http.ResponseWriter, r *request) error {
	var req container.ExecCreateRequest
	if err := r.decodeWhole(&req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return errs.New(errs.Invalid, "No exec command specified")
	}
	if r.v.before(42) {
		req.ConsoleSize = nil
	}
	id, err := s.Containers.ExecCreate(r.Context(), r.name, &req)
	if err != nil {
		return err
	}
	if r.Header.Get("Upgrade") == processProto {
		return s.execRun(w, r, id, &req)
	}
	return writeJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

// execRun starts what was just declared, for a client that wants the process at
// once: its streams, and how it ended. This is an addition of ours to the API,
// see docs/api.md; to dockerd the same request is a mere declaration.
func (s *Server) execRun(w http.ResponseWriter, r *request, id string, req *container.ExecCreateRequest) error {
	sess, err := s.Containers.ExecAttach(r.Context(), id, containers.ExecStartOptions{TTY: req.Tty, ConsoleSize: req.ConsoleSize})
	if err != nil {
		return err
	}
	w.Header().Set(execIDHeader, id)
	return s.connectProcess(w, r, sess, req.AttachStdin, func(ctx context.Context) (*int, error) {
		e, err := s.Containers.ExecInspect(ctx, id) // known: the session's end waits for it
		if err != nil {
			return nil, err
		}
		return e.ExitCode, nil
	})
}

func (s *Server) execStart(w http.ResponseWriter, r *request) error {
	var req container.ExecStartRequest
	if err := r.decode(&req); err != nil {
		return err
	}
	o := containers.ExecStartOptions{TTY: req.Tty}
	if req.Tty && !r.v.before(42) {
		o.ConsoleSize = req.ConsoleSize
	}
	if req.Detach {
		if err := s.Containers.ExecStart(r.Context(), r.name, o); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
	sess, err := s.Containers.ExecAttach(r.Context(), r.name, o)
	switch {
	case err == nil:
		return s.connect(w, r, sess, true)
	case errs.Is(err, errs.NotFound):
		return err
	}
	return s.tellExecError(w, r, req.Tty, err)
}

// tellExecError sends the failure inside the stream, as docker does: clients
// that asked for an upgrade show nothing of an error's body.
func (s *Server) tellExecError(w http.ResponseWriter, r *request, tty bool, failure error) error {
	c, leave, err := s.takeOver(w, r, "tcp", r.streamType(tty))
	if err != nil {
		return failure
	}
	defer leave()
	r.log.DebugContext(r.Context(), "exec failed", "err", failure)
	text := fmt.Sprintf("%v\r\n", failure)
	if !tty {
		head := [8]byte{byte(stdcopy.Stdout)}
		binary.BigEndian.PutUint32(head[4:], uint32(len(text))) //nolint:gosec // an error's text
		text = string(head[:]) + text
	}
	_, _ = io.WriteString(c, text)
	return nil
}

func (s *Server) execResize(w http.ResponseWriter, r *request) error {
	h, wd, err := r.terminal()
	if err != nil {
		return err
	}
	if err := s.Containers.ExecResize(r.Context(), r.name, h, wd); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) execInspect(w http.ResponseWriter, r *request) error {
	e, err := s.Containers.ExecInspect(r.Context(), r.name)
	return answer(w, e, err)
}
