//go:build root

package network

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func from(name string) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) { r.ConfigFrom = &network.ConfigReference{Network: name} }
}

func TestConfigOnly(t *testing.T) {
	l := newLab(t)
	yes := true
	l.network("plan", func(r *network.CreateRequest) {
		r.ConfigOnly, r.Driver, r.EnableIPv6 = true, "whatever", &yes
		r.Options = map[string]string{optMTU: "1300"}
		r.Labels = map[string]string{"tier": "back"}
		r.IPAM = &network.IPAM{Config: []network.IPAMConfig{
			{Subnet: netip.MustParsePrefix("10.31.0.0/24"), Gateway: mustAddr("10.31.0.9"), AuxAddress: map[string]netip.Addr{"x": mustAddr("10.31.0.1")}},
			{Subnet: netip.MustParsePrefix("fd00:31::/64")},
		}}
	})
	inspect := func(name string) network.Network {
		t.Helper()
		n, err := l.Inspect(name)
		if err != nil {
			t.Fatal(err)
		}
		return n.Network
	}
	plan := inspect("plan")
	if !plan.ConfigOnly || plan.Driver != "null" || plan.Scope != "local" || len(plan.IPAM.Config) != 2 || plan.IPAM.Config[1].Gateway.IsValid() {
		t.Errorf("%+v", plan)
	}
	if _, err := l.tryRun("c", []string{"plan"}); !errs.Is(err, errs.Denied) || err.Error() != "cannot create endpoint on configuration-only network" {
		t.Errorf("a container on a configuration: %v", err)
	}
	l.network("real", from("plan"))
	check := func() {
		t.Helper()
		real := inspect("real")
		if real.ConfigOnly || real.ConfigFrom.Network != "plan" || real.Driver != "bridge" || !real.EnableIPv6 {
			t.Errorf("%+v", real)
		}
		if diff := cmp.Diff(plan.Labels, real.Labels) + cmp.Diff(plan.Options, real.Options); diff != "" {
			t.Error(diff)
		}
		s := l.run("c", []string{"real"}, func(sp *SandboxSpec) {
			sp.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv6Address: mustAddr("fd00:31::7")}
		})
		e := s.Endpoints()["real"]
		if e.IPAddress.String() != "10.31.0.2" || e.Gateway.String() != "10.31.0.9" || e.GlobalIPv6Address.String() != "fd00:31::7" {
			t.Errorf("%+v", e)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.Remove(t.Context(), "plan"); !errs.Is(err, errs.Denied) || err.Error() != `configuration network "plan" is in use` {
			t.Errorf("removed in use: %v", err)
		}
	}
	check()
	if _, err := l.Create(t.Context(), &network.CreateRequest{Name: "again", ConfigFrom: &network.ConfigReference{Network: "plan"}}); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "Pool overlaps") {
		t.Errorf("its subnet twice: %v", err)
	}
	l.restart()
	if err := l.Reconcile(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plan, inspect("plan"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	check()
	for _, name := range []string{"real", "plan"} {
		if err := l.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
}
