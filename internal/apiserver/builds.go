package apiserver

import (
	"net/http"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

func buildRoutes() []route {
	return []route{
		{"POST", "/build", write, 0, (*Server).build},
		{"POST", "/build/prune", write, 31, (*Server).buildPrune},
		{"POST", "/build/cancel", write, 0, (*Server).buildCancel},
		{"POST", "/session", write | endless, 0, (*Server).session},
		{"POST", "/grpc", write | endless, 0, (*Server).grpc},
	}
}

func (s *Server) build(w http.ResponseWriter, r *request) error {
	o, err := r.buildOptions()
	if err != nil {
		return err
	}
	fullDuplex(w)
	return report(w, r, func(sink progress.Sink) error {
		if !o.Quiet {
			_, err := s.Builds.Build(r.Context(), *o, r.Body, sink)
			return err
		}
		var kept keeper
		id, err := s.Builds.Build(r.Context(), *o, r.Body, &kept)
		if err != nil { // now it matters what was printed
			kept.replay(sink)
			return err
		}
		sink.Emit(progress.Event{Stream: id + "\n"})
		return nil
	})
}

// keeper holds a quiet build's last output, for the case that it fails.
type keeper struct {
	mu     sync.Mutex // guards events
	events []progress.Event
}

const maxKept = 1000

// Emit keeps a report that is for people.
func (k *keeper) Emit(e progress.Event) {
	if e.Stream == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.events) >= 2*maxKept {
		k.events = append(k.events[:0], k.events[maxKept:]...)
	}
	k.events = append(k.events, e)
}

func (k *keeper) replay(to progress.Sink) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events[max(0, len(k.events)-maxKept):] {
		to.Emit(e)
	}
}

func (r *request) buildOptions() (*builds.Options, error) {
	o := &builds.Options{
		Tags:         r.all("t"),
		Dockerfile:   r.get("dockerfile"),
		Remote:       r.get("remote"),
		Target:       r.get("target"),
		NoCache:      r.flag("nocache"),
		Pull:         r.flag("pull"),
		Quiet:        r.flag("q"),
		Remove:       r.flagOr("rm", true) || r.get("rm") == "" || r.flag("forcerm"),
		ForceRemove:  r.flag("forcerm"),
		Squash:       r.flag("squash"),
		NetworkMode:  r.get("networkmode"),
		ExtraHosts:   splitHosts(r.all("extrahosts")),
		CgroupParent: r.get("cgroupparent"),
		CPUSetCPUs:   r.get("cpusetcpus"),
		CPUSetMems:   r.get("cpusetmems"),
		SessionID:    r.get("session"),
		BuildID:      r.get("buildid"),
		Version:      "1",
	}
	if !r.v.before(32) {
		o.Platform = r.get("platform")
	}
	if v := r.get("version"); v != "" {
		o.Version = v
	}
	for key, n := range map[string]*int64{
		"memory": &o.Memory, "memswap": &o.MemorySwap, "shmsize": &o.ShmSize,
		"cpushares": &o.CPUShares, "cpuperiod": &o.CPUPeriod, "cpuquota": &o.CPUQuota,
	} {
		var err error
		if *n, err = r.number(key); err != nil {
			return nil, err
		}
	}
	for key, v := range map[string]any{
		"buildargs": &o.BuildArgs, "labels": &o.Labels, "cachefrom": &o.CacheFrom, "ulimits": &o.Ulimits,
	} {
		if err := r.json(key, v); err != nil {
			return nil, err
		}
	}
	if !r.v.before(40) {
		if err := r.buildOutputs(o); err != nil {
			return nil, err
		}
	}
	var err error
	if o.AuthConfigs, err = parseAuths(r.Header.Get("X-Registry-Config")); err != nil {
		r.log.DebugContext(r.Context(), "ignoring credentials", "err", err) // as docker: images may be public
	}
	return o, r.checkBuild(o)
}

// buildOutputs reads exporters: each a type and its attributes.
func (r *request) buildOutputs(o *builds.Options) error {
	var outs []struct {
		Type  string
		Attrs map[string]string
	}
	if err := r.json("outputs", &outs); err != nil {
		return err
	}
	for _, out := range outs {
		m := map[string]string{"type": out.Type}
		for k, v := range out.Attrs {
			if k != "type" {
				m[k] = v
			}
		}
		o.Outputs = append(o.Outputs, m)
	}
	return nil
}

// splitHosts: some clients send one parameter with all hosts.
func splitHosts(in []string) []string {
	var out []string
	for _, h := range in {
		for h := range strings.SplitSeq(h, ",") {
			if h != "" {
				out = append(out, h)
			}
		}
	}
	return out
}

func (r *request) checkBuild(o *builds.Options) error {
	switch {
	case o.Version != "1" && o.Version != "2":
		return errs.Newf(errs.Invalid, "invalid version %q", o.Version)
	case r.has("securityopt"):
		return errs.New(errs.Invalid, "security options are not supported on linux")
	case !container.Isolation(r.get("isolation")).IsDefault():
		return errs.Newf(errs.Invalid, "unsupported isolation: %q", r.get("isolation"))
	case o.Squash:
		return errs.New(errs.Invalid, "squash is only supported with experimental mode")
	}
	return nil
}

func (s *Server) buildPrune(w http.ResponseWriter, r *request) error {
	f, err := r.filters()
	if err != nil {
		return err
	}
	o := builds.PruneOptions{All: r.flag("all"), Filters: f}
	if o.ReservedSpace, err = r.number("keep-storage"); err != nil {
		return err
	}
	if !r.v.before(48) {
		n, err := r.number("reserved-space")
		if err != nil {
			return err
		}
		if n != 0 {
			o.ReservedSpace = n
		}
		if o.MaxUsedSpace, err = r.number("max-used-space"); err != nil {
			return err
		}
		if o.MinFreeSpace, err = r.number("min-free-space"); err != nil {
			return err
		}
	}
	rep, err := s.Builds.Prune(r.Context(), o)
	return answer(w, rep, err)
}

func (s *Server) buildCancel(w http.ResponseWriter, r *request) error {
	id := r.get("id")
	if id == "" {
		return errs.New(errs.Invalid, "build ID not provided")
	}
	if err := s.Builds.Cancel(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) grpc(w http.ResponseWriter, r *request) error {
	c, leave, err := s.upgrade(w, r, "h2c")
	if err != nil {
		return err
	}
	defer leave()
	return s.Builds.ServeGRPC(r.Context(), c, r.Header)
}

func (s *Server) session(w http.ResponseWriter, r *request) error {
	c, leave, err := s.upgrade(w, r, "h2c")
	if err != nil {
		return err
	}
	defer leave()
	return s.Builds.ServeSession(r.Context(), c, r.Header)
}
