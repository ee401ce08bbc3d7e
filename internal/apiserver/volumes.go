package apiserver

import (
	"net/http"

	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

func volumeRoutes() []route {
	return []route{
		{"GET", "/volumes", read, 0, (*Server).volumeList},
		{"POST", "/volumes/create", write, 0, (*Server).volumeCreate},
		{"POST", "/volumes/prune", write, 25, (*Server).volumePrune},
		{"GET", "/volumes/{name}", read, 0, (*Server).volumeInspect},
		{"PUT", "/volumes/{name}", write, 42, (*Server).volumeUpdate},
		{"DELETE", "/volumes/{name}", write, 0, (*Server).volumeRemove},
	}
}

func (s *Server) volumeList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	vs, err := s.Volumes.List(r.Context(), f)
	if err != nil {
		return err
	}
	return ok(w, volume.ListResponse{Volumes: list(vs.Volumes), Warnings: list(vs.Warnings)})
}

func (s *Server) volumeCreate(w http.ResponseWriter, r *request) error {
	var req volume.CreateRequest
	if err := r.decodeWhole(&req); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return errNoManager
	}
	v, err := s.Volumes.Create(r.Context(), &req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v)
}

func (s *Server) volumePrune(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	if r.v.before(42) && !f.Has("all") { // named volumes too, then
		if f == nil {
			f = filter.Set{}
		}
		f["all"] = []string{"true"}
	}
	rep, err := s.Volumes.Prune(r.Context(), f)
	return answer(w, rep, err)
}

func (s *Server) volumeInspect(w http.ResponseWriter, r *request) error {
	v, err := s.Volumes.Inspect(r.Context(), r.name)
	return answer(w, v, err)
}

func (s *Server) volumeUpdate(http.ResponseWriter, *request) error {
	return errs.New(errs.Unavailable, "volume update only valid for cluster volumes, but swarm is unavailable")
}

func (s *Server) volumeRemove(w http.ResponseWriter, r *request) error {
	return done(w, s.Volumes.Remove(r.Context(), r.name, r.flag("force")))
}
