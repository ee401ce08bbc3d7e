package apiserver

import (
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func containerRoutes() []route {
	return []route{
		{"GET", "/containers/json", read, 0, (*Server).containerList},
		{"POST", "/containers/create", write, 0, (*Server).containerCreate},
		{"POST", "/containers/prune", write, 25, (*Server).containerPrune},
		{"GET", "/containers/{id}/json", read, 0, (*Server).containerInspect},
		{"GET", "/containers/{id}/top", read, 0, (*Server).containerTop},
		{"GET", "/containers/{id}/logs", read | endless, 0, (*Server).containerLogs},
		{"GET", "/containers/{id}/changes", read, 0, (*Server).containerChanges},
		{"GET", "/containers/{id}/export", read, 0, (*Server).containerExport},
		{"GET", "/containers/{id}/stats", read | endless, 0, (*Server).containerStats},
		{"POST", "/containers/{id}/resize", write, 0, (*Server).containerResize},
		{"POST", "/containers/{id}/start", write, 0, (*Server).containerStart},
		{"POST", "/containers/{id}/stop", write, 0, (*Server).containerStop},
		{"POST", "/containers/{id}/restart", write, 0, (*Server).containerRestart},
		{"POST", "/containers/{id}/kill", write, 0, (*Server).containerKill},
		{"POST", "/containers/{id}/update", write, 0, (*Server).containerUpdate},
		{"POST", "/containers/{id}/rename", write, 0, (*Server).containerRename},
		{"POST", "/containers/{id}/pause", write, 0, (*Server).containerPause},
		{"POST", "/containers/{id}/unpause", write, 0, (*Server).containerUnpause},
		{"POST", "/containers/{id}/attach", write | endless, 0, (*Server).containerAttach},
		{"GET", "/containers/{id}/attach/ws", write | endless, 0, (*Server).containerAttachWS},
		{"POST", "/containers/{id}/wait", read | endless, 0, (*Server).containerWait},
		{"DELETE", "/containers/{id}", write, 0, (*Server).containerRemove},
		{"HEAD", "/containers/{id}/archive", read, 0, (*Server).archiveStat},
		{"GET", "/containers/{id}/archive", read, 0, (*Server).archiveGet},
		{"PUT", "/containers/{id}/archive", write, 0, (*Server).archivePut},
		{"POST", "/commit", write, 0, (*Server).commit},
	}
}

func (s *Server) containerList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	limit, err := r.number("limit")
	if err != nil {
		return err
	}
	cs, err := s.Containers.List(r.Context(), containers.ListOptions{
		All:     r.flag("all"),
		Size:    r.flag("size"),
		Limit:   int(max(limit, 0)),
		Filters: f,
	})
	if err != nil {
		return err
	}
	return okBytes(w, summaries(oldSummaries(r.v, cs)).append)
}

// oldSummaries removes what clients of an older version do not know.
func oldSummaries(v apiVersion, cs []container.Summary) []container.Summary {
	for i := range cs {
		c := &cs[i]
		if v.before(46) {
			c.HostConfig.Annotations = nil
		}
		if v.before(48) {
			c.ImageManifestDescriptor = nil
		}
		if v.before(52) {
			c.Health = nil
		}
	}
	return cs
}

func (s *Server) containerPrune(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	rep, err := s.Containers.Prune(r.Context(), f)
	return answer(w, rep, err)
}

func (s *Server) containerTop(w http.ResponseWriter, r *request) error {
	args := r.fields("ps_args")
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	top, err := s.Containers.Top(r.Context(), r.name, args)
	return answer(w, top, err)
}

func (s *Server) containerChanges(w http.ResponseWriter, r *request) error {
	c, err := s.Containers.Changes(r.Context(), r.name)
	return answer(w, list(c), err)
}

func (s *Server) containerResize(w http.ResponseWriter, r *request) error {
	h, wd, err := r.terminal()
	if err != nil {
		return err
	}
	if err := s.Containers.Resize(r.Context(), r.name, h, wd); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// terminal reads the size parameters of resize.
func (r *request) terminal() (height, width uint, err error) {
	if height, err = r.size("h", "height"); err != nil {
		return 0, 0, err
	}
	width, err = r.size("w", "width")
	return height, width, err
}

func (s *Server) containerStart(w http.ResponseWriter, r *request) error {
	if r.ContentLength > 7 || r.ContentLength == -1 { // more than an empty object
		return errs.New(errs.Invalid, "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if name := r.get("checkpoint"); name != "" {
		if err := containers.CheckCheckpointID(name); err != nil {
			return err
		}
		if !s.o.Experimental {
			return errs.New(errs.Invalid, "checkpoint is only supported in experimental mode")
		}
		return done(w, s.Containers.StartFrom(r.Context(), r.name, r.get("checkpoint-dir"), name))
	}
	return done(w, s.Containers.Start(r.Context(), r.name))
}

func (r *request) stopOptions() (o containers.StopOptions, err error) {
	if !r.v.before(42) {
		o.Signal = r.get("signal")
	}
	if r.get("t") != "" {
		n, err := r.number("t")
		if err != nil {
			return o, err
		}
		if n > int64(time.Duration(1<<63-1)/time.Second) || n < -1<<31 {
			return o, errs.Newf(errs.Invalid, "invalid value %q for \"t\": out of range", r.get("t"))
		}
		t := int(n)
		o.Timeout = &t
	}
	return o, nil
}

func (s *Server) containerStop(w http.ResponseWriter, r *request) error {
	o, err := r.stopOptions()
	if err != nil {
		return err
	}
	return done(w, s.Containers.Stop(r.Context(), r.name, o))
}

func (s *Server) containerRestart(w http.ResponseWriter, r *request) error {
	o, err := r.stopOptions()
	if err != nil {
		return err
	}
	return done(w, s.Containers.Restart(r.Context(), r.name, o))
}

func (s *Server) containerKill(w http.ResponseWriter, r *request) error {
	return done(w, s.Containers.Kill(r.Context(), r.name, r.get("signal")))
}

func (s *Server) containerUpdate(w http.ResponseWriter, r *request) error {
	var body struct {
		container.UpdateConfig
		Init *bool
	}
	if err := r.decodeWhole(&body); err != nil {
		return err
	}
	if body.Init != nil {
		return errs.New(errs.Unsupported, "Init of a container cannot be updated")
	}
	u := body.UpdateConfig
	if r.v.before(40) {
		u.PidsLimit = nil
	}
	if r.v.before(55) {
		u.BlkioWeightDevice = nil
		u.BlkioDeviceReadBps, u.BlkioDeviceWriteBps = nil, nil
		u.BlkioDeviceReadIOps, u.BlkioDeviceWriteIOps = nil, nil
	}
	if u.PidsLimit != nil && *u.PidsLimit < 0 { // any negative number is unlimited, which is 0
		*u.PidsLimit = 0
	}
	rep, err := s.Containers.Update(r.Context(), r.name, u)
	rep.Warnings = list(rep.Warnings)
	return answer(w, rep, err)
}

func (s *Server) containerRename(w http.ResponseWriter, r *request) error {
	return done(w, s.Containers.Rename(r.Context(), r.name, r.get("name")))
}

func (s *Server) containerPause(w http.ResponseWriter, r *request) error {
	return done(w, s.Containers.Pause(r.Context(), r.name))
}

func (s *Server) containerUnpause(w http.ResponseWriter, r *request) error {
	return done(w, s.Containers.Unpause(r.Context(), r.name))
}

func (s *Server) containerRemove(w http.ResponseWriter, r *request) error {
	return done(w, s.Containers.Remove(r.Context(), r.name, containers.RemoveOptions{
		Force:   r.flag("force"),
		Volumes: r.flag("v"),
		Link:    r.flag("link"),
	}))
}

func (s *Server) commit(w http.ResponseWriter, r *request) error {
	var body struct{ *container.Config }
	if err := r.decode(&body); err != nil {
		return err
	}
	ref, err := repoTag(r.get("repo"), r.get("tag"))
	if err != nil {
		return err
	}
	id, err := s.Containers.Commit(r.Context(), containers.CommitOptions{
		Container: r.get("container"),
		Ref:       ref,
		Author:    r.get("author"),
		Comment:   r.get("comment"),
		Pause:     r.flagOr("pause", true),
		Changes:   r.all("changes"),
		Config:    body.Config,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}
