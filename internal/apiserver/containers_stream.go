package apiserver

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/net/websocket"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func (s *Server) containerLogs(w http.ResponseWriter, r *request) error {
	o, err := r.logsOptions()
	if err != nil {
		return err
	}
	l, err := s.Containers.Logs(r.Context(), r.name, o)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	ctype := r.logsType(l.TTY)
	out := newBulkStream(w, ctype)
	if o.Follow { // somebody waits for each line
		out = newStream(w, ctype)
		out.start()
	}
	_, err = l.WriteTo(out)
	if r.Context().Err() != nil {
		return nil //nolint:nilerr // the reader had enough
	}
	return out.finish(err)
}

// logsType is the form of a log: since 1.54, JSON for those who ask for it.
func (r *request) logsType(tty bool) string {
	if r.v.before(54) {
		return r.streamType(tty)
	}
	switch t := r.acceptsJSONStream(); {
	case t != "":
		return t
	case r.get("format") == "json":
		return types.MediaTypeNDJSON
	}
	return r.streamType(tty)
}

func (r *request) logsOptions() (o containers.LogsOptions, err error) {
	o = containers.LogsOptions{
		Stdout:     r.flag("stdout"),
		Stderr:     r.flag("stderr"),
		Follow:     r.flag("follow"),
		Timestamps: r.flag("timestamps"),
		Details:    r.flag("details"),
		Tail:       parseTail(r.get("tail")),
		Lines:      framesAreLines(r.UserAgent()),
	}
	if !o.Stdout && !o.Stderr {
		return o, errs.New(errs.Invalid, "must specify at least one of 'stdout' or 'stderr'")
	}
	if f := r.get("format"); f != "" && f != "json" && !r.v.before(54) {
		return o, errs.New(errs.Invalid, "unsupported log format")
	}
	switch r.logsType(false) {
	case types.MediaTypeJSONSequence:
		o.JSON, o.RS = true, true
	case types.MediaTypeJSONLines, types.MediaTypeNDJSON:
		o.JSON = true
	}
	if o.Since, err = r.time("since"); err != nil {
		return o, err
	}
	o.Until, err = r.until()
	return o, err
}

// framesAreLines tells whether a client may take a frame for a line, as
// docker-py's iterators do. The command lines, who read most logs, do not.
func framesAreLines(agent string) bool {
	return !strings.HasPrefix(agent, "Docker-Client/") && !strings.HasPrefix(agent, "skiff/")
}

// parseTail: what is no number is all of it, as docker reads it.
func parseTail(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

func (s *Server) containerExport(w http.ResponseWriter, r *request) error {
	out := newBulkStream(w, "application/x-tar")
	return out.finish(s.Containers.Export(r.Context(), r.name, out))
}

func (s *Server) containerStats(w http.ResponseWriter, r *request) error {
	follow := r.flagOr("stream", true)
	oneShot := !r.v.before(41) && r.flag("one-shot")
	if follow && oneShot {
		return errs.New(errs.Invalid, "cannot have stream=true and one-shot=true")
	}
	out := newStream(w, types.MediaTypeJSON)
	enc := json.NewEncoder(out)
	err := s.Containers.Stats(r.Context(), r.name, follow, oneShot, func(st *container.StatsResponse) error {
		return enc.Encode(st)
	})
	if err != nil && r.Context().Err() != nil {
		return nil //nolint:nilerr // the reader had enough
	}
	return out.finish(err)
}

func (s *Server) containerWait(w http.ResponseWriter, r *request) error {
	cond := container.WaitConditionNotRunning
	if c := container.WaitCondition(r.get("condition")); c != "" && !r.v.before(30) {
		switch c {
		case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
			cond = c
		default:
			return errs.Newf(errs.Invalid, "invalid condition: %q", c)
		}
	}
	ch, err := s.Containers.Wait(r.Context(), r.name, cond)
	if err != nil {
		return err
	}
	out := newStream(w, types.MediaTypeJSON)
	if !r.v.before(30) { // a client starts the container once it has the headers
		out.start()
	}
	select {
	case res, open := <-ch:
		if !open {
			return errs.Newf(errs.Internal, "wait for container %s: no result", r.name)
		}
		return out.finish(json.NewEncoder(out).Encode(res))
	case <-r.Context().Done():
		return context.Cause(r.Context()) // cuts the answer short: there is none
	}
}

func (r *request) attachOptions() containers.AttachOptions {
	return containers.AttachOptions{
		Stdin:      r.flag("stdin"),
		Stdout:     r.flag("stdout"),
		Stderr:     r.flag("stderr"),
		Logs:       r.flag("logs"),
		Stream:     r.flag("stream"),
		DetachKeys: r.get("detachKeys"),
	}
}

func (s *Server) containerAttach(w http.ResponseWriter, r *request) error {
	o := r.attachOptions()
	sess, err := s.Containers.Attach(r.Context(), r.name, o)
	if err != nil {
		return err
	}
	return s.connect(w, r, sess, o.Stdin && o.Stream)
}

// containerAttachWS is attach over a websocket: raw bytes both ways.
func (s *Server) containerAttachWS(w http.ResponseWriter, r *request) error {
	o := r.attachOptions()
	if r.v.before(42) { // the parameters were not read
		o.Stdin, o.Stdout, o.Stderr = true, true, true
	}
	sess, err := s.Containers.Attach(r.Context(), r.name, o)
	if err != nil {
		return err
	}
	defer func() { _ = sess.Close() }()
	if !s.enter() {
		return errShutdown
	}
	defer s.hijacked.Done()
	srv := websocket.Server{Handler: func(ws *websocket.Conn) {
		if !r.v.before(28) {
			ws.PayloadType = websocket.BinaryFrame
		}
		ws.MaxPayloadBytes = 1 << 20
		go func() {
			<-r.Context().Done()
			_ = sess.Close()
			_ = ws.Close()
		}()
		go func() { // ends with the connection, which the server closes after us
			var in io.Writer = io.Discard
			if o.Stdin {
				in = sess
			}
			_, err := io.Copy(in, ws)
			if err != nil || !o.Stdin {
				_ = sess.Close()
				return
			}
			_ = sess.CloseWrite()
		}()
		var err error
		if sess.TTY() {
			_, err = io.Copy(ws, sess)
		} else {
			_, err = stdcopy.StdCopy(ws, ws, sess)
		}
		r.log.DebugContext(r.Context(), "websocket ended", "err", err)
	}}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	r.Request = r.WithContext(ctx)
	srv.ServeHTTP(w, r.Request)
	return nil
}
