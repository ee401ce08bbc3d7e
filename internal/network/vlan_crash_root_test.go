//go:build root

package network

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// TestVLANRestart: a daemon that was killed leaves parents and containers; the
// next one takes over what somebody has and removes the rest.
func TestVLANRestart(t *testing.T) {
	l := newLab(t)
	l.needsKinds(link.Macvlan)
	out := l.outside()
	l.serve(out, ":80", "out")
	l.network("m", on(link.Macvlan, "parent=wan0"), wan)
	a, b := l.run("a", []string{"m"}), l.run("b", []string{"m"})
	l.serve(a, ":80", "a")
	ip := a.ip(t, "m")
	states := map[*Sandbox]SandboxState{a: a.State(), b: b.State()}

	pids := map[*Sandbox]int{a: l.process(a), b: l.process(b)}
	l.restart()
	adopted := map[*Sandbox]*Sandbox{}
	for s, st := range states {
		got, err := l.AdoptSandbox(t.Context(), st, pids[s], 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = got.Close(context.Background()) })
		adopted[s] = got
	}
	if err := l.Reconcile(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	a, b = adopted[a], adopted[b]
	l.reaches(b, "tcp", ip.String()+":80", "a")
	l.reaches(b, "tcp", "198.51.100.2:80", "out")
	if as, ok := (view{b}).Lookup("a"); !ok || as[0] != ip {
		t.Errorf("name: %v", as)
	}
	_, err := l.tryRun("c", []string{"m"}, func(sp *SandboxSpec) {
		sp.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: ip}
	})
	if !errs.Is(err, errs.Denied) {
		t.Errorf("its address is free: %v", err)
	}
	info, _ := l.Lookup("m")
	if err := a.Disconnect(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	if got := l.defaultRoutes(a); got != nil {
		t.Errorf("routes after it left: %v", got)
	}
	if err := a.Connect(t.Context(), EndpointSpec{Network: info.ID}); err != nil {
		t.Fatal(err)
	}
	l.reaches(a, "tcp", "198.51.100.2:80", "out")
	for _, s := range []*Sandbox{a, b} {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// The parent is gone at the next start: the network is there, and says so.
	nl, _ := netlink.LinkByName("wan0")
	if err := netlink.LinkDel(nl); err != nil {
		t.Fatal(err)
	}
	l.restart()
	if _, err := l.tryRun("c", []string{"m"}); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "connect to network m: its parent interface wan0 is missing") {
		t.Errorf("without the parent: %v", err)
	}
	if err := l.Remove(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if _, made, _ := link.Owned(l.group); !slices.Equal(made, []string{"skiff0"}) {
		t.Errorf("left: %v", made)
	}
}

// TestVLANParentsAfterCrash: as if a daemon was killed in the middle of making,
// or removing, networks.
func TestVLANParentsAfterCrash(t *testing.T) {
	l := newLab(t)
	l.needsKinds(link.Macvlan, link.IPvlan, "vlan", "dummy")
	l.outside()
	alone := "dm-" + l.network("alone", on(link.Macvlan))[:12]
	l.network("tagged", on(link.IPvlan, "parent=wan0.7"))
	a := l.run("a", []string{"alone", "tagged"})
	state, pid := a.State(), l.process(a)
	nl, _ := netlink.LinkByName("wan0")
	for _, err := range []error{
		l.rt.AddDummy("dm-strayed", l.group), l.rt.AddVLAN("wan0.8", nl.Attrs().Index, 8, l.group), l.rt.AddDummy("dm-others", 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { d, _ := netlink.LinkByName("dm-others"); _ = netlink.LinkDel(d) })
	l.restart()
	a, err := l.AdoptSandbox(t.Context(), state, pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(context.Background()) })
	if err := l.Reconcile(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for name, there := range map[string]bool{"dm-strayed": false, "wan0.8": false, "dm-others": true, alone: true, "wan0.7": true} {
		if link.Exists(name) != there {
			t.Errorf("%s is there: %v", name, !there)
		}
	}
	b := l.run("b", []string{"tagged"})
	l.serve(b, ":80", "b")
	l.reaches(a, "tcp", b.ip(t, "tagged").String()+":80", "b")
	for _, s := range []*Sandbox{a, b} {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// After a reboot nothing of it is there: it is made again.
	for _, name := range []string{alone, "wan0.7"} {
		if err := link.DeleteOwned(name, l.group); err != nil {
			t.Fatal(err)
		}
	}
	l.restart()
	for _, name := range []string{alone, "wan0.7"} {
		if !link.Exists(name) {
			t.Errorf("%s is not made again", name)
		}
	}
	for _, n := range []string{"alone", "tagged"} {
		if err := l.Remove(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if _, made, _ := link.Owned(l.group); !slices.Equal(made, []string{"skiff0"}) {
		t.Errorf("left: %v", made)
	}
}
