package apiserver

import (
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func networkRoutes() []route {
	return []route{
		{"GET", "/networks", read, 0, (*Server).networkList},
		{"GET", "/networks/", read, 0, (*Server).networkList},
		{"GET", "/networks/{id}", read, 0, (*Server).networkInspect},
		{"POST", "/networks/create", write, 0, (*Server).networkCreate},
		{"POST", "/networks/prune", write, 25, (*Server).networkPrune},
		{"POST", "/networks/{id}/connect", write, 0, (*Server).networkConnect},
		{"POST", "/networks/{id}/disconnect", write, 0, (*Server).networkDisconnect},
		{"DELETE", "/networks/{id}", write, 0, (*Server).networkRemove},
	}
}

func (s *Server) networkList(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	ns, err := s.Networks.List(r.Context(), f)
	if err != nil {
		return err
	}
	if r.v.before(52) {
		for i := range ns {
			ns[i].Status = nil
			if !r.v.before(28) || ns[i].Containers == nil { // listing told of endpoints before 1.28
				ns[i].Containers = map[string]network.EndpointResource{}
			}
		}
		return ok(w, list(ns))
	}
	sums := make([]network.Summary, len(ns))
	for i := range ns {
		sums[i].Network = ns[i].Network
	}
	return ok(w, sums)
}

func (s *Server) networkInspect(w http.ResponseWriter, r *request) error {
	if v := r.get("verbose"); v != "" { // it tells of swarms only
		if _, err := strconv.ParseBool(v); err != nil {
			return errs.Newf(errs.Invalid, "invalid value for verbose: %s: %w", v, err)
		}
	}
	n, err := s.Networks.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	if scope := r.get("scope"); scope != "" && scope != n.Scope {
		return errs.Newf(errs.NotFound, "network %s not found", r.name)
	}
	shown := *n
	if shown.Containers == nil {
		shown.Containers = map[string]network.EndpointResource{}
	}
	if r.v.before(52) {
		shown.Status = nil
	}
	return ok(w, shown)
}

func (s *Server) networkCreate(w http.ResponseWriter, r *request) error {
	var req network.CreateRequest
	if err := r.decodeWhole(&req); err != nil {
		return err
	}
	if r.v.before(48) {
		req.EnableIPv4 = nil
	}
	rep, err := s.Networks.Create(r.Context(), &req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, rep)
}

func (s *Server) networkPrune(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	rep, err := s.Networks.Prune(r.Context(), f)
	return answer(w, rep, err)
}

func (s *Server) networkConnect(w http.ResponseWriter, r *request) error {
	var req network.ConnectRequest
	if err := r.decodeWhole(&req); err != nil {
		return err
	}
	if ep := req.EndpointConfig; ep != nil {
		if r.v.before(54) {
			ep.MacAddress = nil
		}
		if r.v.before(48) {
			ep.GwPriority = 0
		}
	}
	if err := s.Networks.Connect(r.Context(), r.name, &req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) networkDisconnect(w http.ResponseWriter, r *request) error {
	var req network.DisconnectRequest
	if err := r.decodeWhole(&req); err != nil {
		return err
	}
	if err := s.Networks.Disconnect(r.Context(), r.name, &req); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) networkRemove(w http.ResponseWriter, r *request) error {
	return done(w, s.Networks.Remove(r.Context(), r.name))
}
