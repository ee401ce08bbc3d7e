package containers

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

type decision uint8

const (
	take decision = iota
	skip
	stop
)

// listFilter decides over containers that come newest first.
type listFilter struct {
	set    filter.Set
	all    bool
	limit  int
	before string // id: those after it in the list
	since  string // id: those before it
	exited []int
	images []string // ids; nil without "ancestor"
	isTask *bool
	name   func(string) bool

	publish, expose map[string]bool
}

func (s *Service) newListFilter(ctx context.Context, o ListOptions) (*listFilter, error) {
	f := &listFilter{set: o.Filters, all: o.All, limit: o.Limit, name: o.Filters.Matcher("name")}
	err := f.set.Check("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label",
		"name", "network", "publish", "since", "status", "volume")
	if err != nil {
		return nil, err
	}
	for _, v := range f.set["exited"] {
		code, err := strconv.Atoi(v)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid filter 'exited=%s': %w", v, err)
		}
		f.exited = append(f.exited, code)
	}
	for _, v := range f.set["status"] {
		if err := container.ValidateContainerState(container.ContainerState(v)); err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid filter 'status=%s': %w", v, err)
		}
		f.all = true
	}
	for _, v := range f.set["health"] {
		if err := container.ValidateHealthStatus(container.HealthStatus(v)); err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid filter 'health=%s': %w", v, err)
		}
	}
	if f.set.Has("is-task") {
		v, err := f.set.Bool("is-task", false)
		if err != nil {
			return nil, err
		}
		f.isTask = &v
	}
	for _, ref := range []struct {
		key string
		to  *string
	}{{"before", &f.before}, {"since", &f.since}} {
		for _, v := range f.set[ref.key] {
			c, err := s.index.get(v)
			if err != nil {
				return nil, err
			}
			*ref.to = c.id
		}
	}
	if f.publish, err = portSet("publish", f.set); err != nil {
		return nil, err
	}
	if f.expose, err = portSet("expose", f.set); err != nil {
		return nil, err
	}
	if f.set.Has("ancestor") {
		f.images = []string{}
		for _, ref := range f.set["ancestor"] {
			// An image that is not there has no containers.
			ids, err := s.o.Images.Descendants(ctx, ref)
			if err != nil && !errs.Is(err, errs.NotFound) {
				return nil, err
			}
			f.images = append(f.images, ids...)
		}
	}
	return f, nil
}

func portSet(key string, set filter.Set) (map[string]bool, error) {
	var out map[string]bool
	for _, v := range set[key] {
		if strings.Contains(v, ":") {
			return nil, errs.Newf(errs.Invalid, "filter for '%s' should not contain ':': %s", key, v)
		}
		r, err := network.ParsePortRange(v)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "error while looking up for %s %s: %w", key, v, err)
		}
		if out == nil {
			out = map[string]bool{}
		}
		for p := range r.All() {
			out[p.String()] = true
		}
	}
	return out, nil
}

// decide says what to do with the next container, after taken ones.
func (f *listFilter) decide(v *view, taken int) decision {
	if f.before != "" {
		if v.rec.ID == f.before {
			f.before = ""
		}
		return skip
	}
	if f.since != "" && v.rec.ID == f.since || f.limit > 0 && taken == f.limit {
		return stop
	}
	if !v.st.Phase.active() && !f.all && f.limit <= 0 {
		return skip
	}
	if f.matches(v) {
		return take
	}
	return skip
}

func (f *listFilter) matches(v *view) bool {
	rec, st := &v.rec, &v.st
	health := container.NoHealthcheck
	if v.health != nil {
		health = v.health.Status
	}
	switch {
	case f.set.Has("name") && !f.name(rec.Name) && !f.name("/"+rec.Name),
		!f.set.Prefix("id", rec.ID),
		!f.set.Labels("label", rec.Config.Labels),
		!f.set.Exact("status", string(st.Phase)),
		!f.set.Exact("health", string(health)),
		f.isTask != nil && *f.isTask, // there are no tasks of a swarm here
		f.images != nil && !slices.Contains(f.images, rec.ImageID):
		return false
	case len(f.exited) > 0 && (st.Phase.active() || st.neverStarted() || !slices.Contains(f.exited, st.ExitCode)):
		return false
	}
	return f.volume(rec) && f.network(v) && f.ports(v)
}

func (f *listFilter) volume(rec *Record) bool {
	wanted := f.set["volume"]
	return len(wanted) == 0 || slices.ContainsFunc(rec.Mounts, func(m Mount) bool {
		return slices.Contains(wanted, m.Destination) || m.Name != "" && slices.Contains(wanted, m.Name) ||
			m.Name == "" && m.Source != "" && slices.Contains(wanted, m.Source)
	})
}

func (f *listFilter) network(v *view) bool {
	if !f.set.Has("network") {
		return true
	}
	for name, e := range endpoints(v) {
		if slices.ContainsFunc(f.set["network"], func(w string) bool {
			return w == name || e != nil && e.NetworkID != "" && strings.HasPrefix(e.NetworkID, w)
		}) {
			return true
		}
	}
	return false
}

func (f *listFilter) ports(v *view) bool {
	if len(f.publish) == 0 && len(f.expose) == 0 {
		return true
	}
	return slices.ContainsFunc(portSummaries(v), func(p container.PortSummary) bool {
		return f.publish[itoa(int(p.PublicPort))+"/"+p.Type] || f.expose[itoa(int(p.PrivatePort))+"/"+p.Type]
	})
}
