package apiserver

import (
	"net/http"

	"github.com/moby/moby/api/types/checkpoint"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func checkpointRoutes() []route {
	return []route{
		{"GET", "/containers/{id}/checkpoints", read, 0, experimental((*Server).checkpointList)},
		{"POST", "/containers/{id}/checkpoints", write, 0, experimental((*Server).checkpointCreate)},
		{"DELETE", "/containers/{id}/checkpoints/{checkpoint}", write, 0, experimental((*Server).checkpointRemove)},
	}
}

// experimental refuses a route unless the daemon was told to offer such.
func experimental(h handler) handler {
	return func(s *Server, w http.ResponseWriter, r *request) error {
		if !s.o.Experimental {
			return errs.New(errs.Unsupported, "this experimental feature is disabled by default: start the daemon with --experimental to have checkpoints")
		}
		return h(s, w, r)
	}
}

func (s *Server) checkpointCreate(w http.ResponseWriter, r *request) error {
	var body checkpoint.CreateRequest
	if err := r.decodeWhole(&body); err != nil {
		return err
	}
	o := containers.CheckpointOptions{ID: body.CheckpointID, Dir: body.CheckpointDir, Exit: body.Exit}
	if err := s.Containers.Checkpoint(r.Context(), r.name, o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) checkpointList(w http.ResponseWriter, r *request) error {
	names, err := s.Containers.Checkpoints(r.Context(), r.name, r.get("dir"))
	if err != nil {
		return err
	}
	out := make([]checkpoint.Summary, len(names))
	for i, n := range names {
		out[i].Name = n
	}
	return ok(w, out)
}

func (s *Server) checkpointRemove(w http.ResponseWriter, r *request) error {
	return done(w, s.Containers.RemoveCheckpoint(r.Context(), r.name, r.get("dir"), r.sub))
}
