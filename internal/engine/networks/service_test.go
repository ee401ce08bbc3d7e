package networks

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/apiserver"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

var _ apiserver.Networks = (*Service)(nil)

// fake is manager, containers and publisher.
type fake struct {
	nets  []network.Inspect
	calls []string
}

func (f *fake) Create(context.Context, *network.CreateRequest) (network.CreateResponse, error) {
	return network.CreateResponse{ID: "new"}, nil
}

func (f *fake) List() []network.Inspect { return append([]network.Inspect(nil), f.nets...) }

func (f *fake) Inspect(ref string) (*network.Inspect, error) {
	for _, n := range f.nets {
		if n.Name == ref || n.ID == ref {
			return &n, nil
		}
	}
	return nil, errs.Newf(errs.NotFound, "network %s not found", ref)
}

func (f *fake) Remove(_ context.Context, ref string) error {
	if ref == "stuck" {
		return errs.New(errs.Denied, "no")
	}
	f.calls = append(f.calls, "remove "+ref)
	return nil
}

func (f *fake) ConnectNetwork(_ context.Context, c, n string, e *network.EndpointSettings) error {
	f.calls = append(f.calls, "connect "+c+" "+n+" "+e.Aliases[0])
	return nil
}

func (f *fake) DisconnectNetwork(_ context.Context, c, n string, force bool) error {
	if force {
		n += " force"
	}
	f.calls = append(f.calls, "disconnect "+c+" "+n)
	return nil
}

func (f *fake) Publish(t events.Type, a events.Action, _ string, _ map[string]string) {
	f.calls = append(f.calls, string(t)+" "+string(a))
}

func world() (*Service, *fake) {
	net := func(id, name, driver string, age time.Duration, labels map[string]string, users int) network.Inspect {
		n := network.Inspect{Network: network.Network{
			ID: id, Name: name, Driver: driver, Scope: "local", Labels: labels, Created: time.Now().Add(-age),
		}, Containers: map[string]network.EndpointResource{}}
		for range users {
			n.Containers["c"] = network.EndpointResource{}
		}
		return n
	}
	f := &fake{nets: []network.Inspect{
		net("aa1", "bridge", "bridge", time.Hour, nil, 0),
		net("ab2", "host", "host", time.Hour, nil, 0),
		net("ba3", "back", "bridge", time.Hour, map[string]string{"tier": "db"}, 0),
		net("bb4", "front", "bridge", time.Minute, map[string]string{"tier": "web"}, 0),
		net("bc5", "busy", "bridge", time.Hour, nil, 1),
		net("stuck", "stuck", "bridge", time.Hour, map[string]string{"tier": "x"}, 0),
	}}
	plan := net("plan", "plan", "null", time.Hour, nil, 0)
	plan.ConfigOnly = true
	f.nets = append(f.nets, plan) // not pruned
	return New(Options{Manager: f, Containers: f, Events: f, Log: slog.New(slog.DiscardHandler)}), f
}

func TestList(t *testing.T) {
	for name, tc := range map[string]struct {
		f    filter.Set
		want []string
		bad  bool
	}{
		"everything":        {want: []string{"bridge", "host", "back", "front", "busy", "stuck", "plan"}},
		"by driver":         {f: filter.Set{"driver": {"host"}}, want: []string{"host"}},
		"by id":             {f: filter.Set{"id": {"ba", "ab"}}, want: []string{"host", "back"}},
		"by name":           {f: filter.Set{"name": {"^b"}}, want: []string{"bridge", "back", "busy"}},
		"by label":          {f: filter.Set{"label": {"tier=db"}}, want: []string{"back"}},
		"custom":            {f: filter.Set{"type": {"custom"}}, want: []string{"back", "front", "busy", "stuck", "plan"}},
		"builtin":           {f: filter.Set{"type": {"builtin"}}, want: []string{"bridge", "host"}},
		"dangling":          {f: filter.Set{"dangling": {"true"}}, want: []string{"back", "front", "stuck", "plan"}},
		"not dangling":      {f: filter.Set{"dangling": {"false"}}, want: []string{"bridge", "host", "busy"}},
		"by scope":          {f: filter.Set{"scope": {"swarm"}}},
		"an unknown filter": {f: filter.Set{"colour": {"red"}}, bad: true},
		"an unknown type":   {f: filter.Set{"type": {"own"}}, bad: true},
		"a bad boolean":     {f: filter.Set{"dangling": {"maybe"}}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := world()
			ns, err := s.List(t.Context(), tc.f)
			if tc.bad != errs.Is(err, errs.Invalid) {
				t.Fatal(err)
			}
			var got []string
			for _, n := range ns {
				got = append(got, n.Name)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	for name, tc := range map[string]struct {
		f    filter.Set
		want []string
		bad  bool
	}{
		"what is unused":             {want: []string{"back", "front"}},
		"what is older":              {f: filter.Set{"until": {"30m"}}, want: []string{"back"}},
		"what has a label":           {f: filter.Set{"label": {"tier=web"}}, want: []string{"front"}},
		"what lacks a label":         {f: filter.Set{"label!": {"tier=web", "tier=x"}}, want: []string{"back"}},
		"with an unreadable date":    {f: filter.Set{"until": {"soon"}}, bad: true},
		"with a filter of the wrong": {f: filter.Set{"name": {"x"}}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, f := world()
			r, err := s.Prune(t.Context(), tc.f)
			if tc.bad != errs.Is(err, errs.Invalid) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, r.NetworksDeleted); diff != "" {
				t.Error(diff)
			}
			if !tc.bad && f.calls[len(f.calls)-1] != "network prune" {
				t.Errorf("no event: %v", f.calls)
			}
		})
	}
}

func TestContainersAreAskedByID(t *testing.T) {
	s, f := world()
	ctx := t.Context()
	if err := s.Connect(ctx, "back", &network.ConnectRequest{Container: "c", EndpointConfig: &network.EndpointSettings{Aliases: []string{"x"}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Disconnect(ctx, "back", &network.DisconnectRequest{Container: "c", Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := s.Connect(ctx, "nowhere", &network.ConnectRequest{Container: "c"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("connect to no network: %v", err)
	}
	if diff := cmp.Diff([]string{"connect c ba3 x", "disconnect c ba3 force"}, f.calls); diff != "" {
		t.Error(diff)
	}
}
