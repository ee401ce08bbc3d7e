//go:build root

package network

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/network/apply"
	"github.com/skiff-containers/skiff/internal/network/link"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

func (l *lab) veths() []string {
	l.t.Helper()
	veths, _, err := link.Owned(l.group)
	if err != nil {
		l.t.Fatal(err)
	}
	return veths
}

// prepared reports whether all that is made ahead is made.
func (l *lab) prepared() bool {
	a := l.ahead.Load()
	return !slices.ContainsFunc(a.kinds, func(k kind) bool { return len(k.ready) < cap(k.ready) })
}

func (l *lab) kernelPorts() []string {
	l.t.Helper()
	fw, err := apply.Open()
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	ps, err := fw.Ports("skiff")
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, p := range ps {
		out = append(out, fmt.Sprintf("%s/%s %s", p.Host, p.Proto, p.To))
	}
	slices.Sort(out)
	return out
}

func TestNothingLeaks(t *testing.T) {
	l := newLab(t)
	l.network("user")
	info, _ := l.Lookup("user")
	descriptors := func() int {
		fds, _ := filepath.Glob("/proc/self/fd/*")
		return len(fds)
	}
	eventually(t, "namespaces made ahead", l.prepared)
	before := descriptors()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				s, err := l.tryRun(fmt.Sprintf("c%d-%d", w, i), []string{"bridge", "user"}, publish(tcpPort(0, 80)))
				if err != nil {
					t.Error(err)
					return
				}
				if err := s.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "interfaces gone", func() bool { return l.prepared() && len(l.veths()) == l.o.PoolSize })
	eventually(t, "descriptors closed", func() bool { return descriptors() <= before })
	if ps := l.kernelPorts(); len(ps) != 0 {
		t.Errorf("ports are left: %v", ps)
	}
	if len(l.ports.taken) != 0 || len(l.sandboxes) != 0 {
		t.Errorf("left: %d ports, %d sandboxes", len(l.ports.taken), len(l.sandboxes))
	}
	for _, name := range []string{"bridge", "user"} {
		lan, _ := l.find(name)
		eventually(t, "addresses free on "+name, func() bool {
			lan.mu.Lock()
			defer lan.mu.Unlock()
			used, _ := lan.v4[0].Used()
			return used == 3
		})
		if len(lan.endpoints) != 0 || len(lan.names) != 0 {
			t.Errorf("%s: %d endpoints, %d names left", name, len(lan.endpoints), len(lan.names))
		}
	}
	if err := l.Remove(context.Background(), info.ID); err != nil {
		t.Error(err)
	}
}

func TestAFailedStartLeavesNothing(t *testing.T) {
	l := newLab(t)
	l.serve(nil, "0.0.0.0:9090", "host")
	l.network("user")
	for range 3 {
		if _, err := l.tryRun("x", []string{"bridge", "user"}, publish(tcpPort(9090, 80))); err == nil {
			t.Fatal("started with a taken port")
		}
	}
	if _, err := l.tryRun("y", []string{"user"}, func(s *SandboxSpec) { s.Sysctls = map[string]string{"net.ipv4.no_such": "1"} }); err == nil {
		t.Fatal("started with a sysctl that does not exist")
	}
	eventually(t, "interfaces gone", func() bool { return l.prepared() && len(l.veths()) == l.o.PoolSize })
	eventually(t, "addresses free", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.resting) == 0
	})
	if s := l.run("z", []string{"bridge"}); s.ip(t, "bridge").String() != "172.17.0.2" {
		t.Errorf("address %s", s.ip(t, "bridge"))
	}
	if got := l.events.all(); len(got) != 2 || !strings.HasPrefix(got[1], "network connect bridge bridge ") {
		t.Errorf("events of failed starts: %q", got)
	}
}

// process starts one that lives in the sandbox, as a container does.
func (l *lab) process(s *Sandbox) int {
	l.t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := l.inside(s, cmd.Start); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func TestContainersOutliveTheDaemon(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	l.network("user")
	web := l.run("web", []string{"bridge", "user"}, publish(tcpPort(8080, 80), tcpPort(0, 81)), func(s *SandboxSpec) {
		s.Endpoints[1].Settings.Aliases = []string{"www"}
	})
	l.serve(web, ":80", "web")
	gone := l.run("gone", []string{"bridge"}, publish(tcpPort(8081, 80)))
	l.serve(gone, ":80", "gone")
	state, pid := web.State(), l.process(web)
	l.process(gone)
	kept := l.kernelPorts()

	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.reaches(out, "tcp4", "198.51.100.1:8080", "web") // nobody serves now
	l.reaches(nil, "tcp4", "127.0.0.1:8080", "web")
	l.start()
	if got := l.kernelPorts(); !slices.Equal(got, kept) {
		t.Errorf("ports after the restart: %v, before: %v", got, kept)
	}
	l.reaches(out, "tcp4", "198.51.100.1:8080", "web") // not adopted yet
	web, err := l.AdoptSandbox(t.Context(), state, pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Reconcile(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fmt.Sprint(state.Endpoints, state.Ports), fmt.Sprint(web.State().Endpoints, web.State().Ports)); diff != "" && len(state.Endpoints) != len(web.Endpoints()) {
		t.Error(diff)
	}
	t.Run("an adopted container goes on", func(t *testing.T) {
		l.reaches(out, "tcp4", "198.51.100.1:8080", "web")
		l.reaches(nil, "tcp6", "[::1]:8080", "web")
		peer := l.run("peer", []string{"user"})
		if got := l.resolve(peer, "www"); !slices.Equal(got, []string{web.ip(t, "user").String()}) {
			t.Errorf("www is %v", got)
		}
		if got := l.resolve(web, "peer"); !slices.Equal(got, []string{peer.ip(t, "user").String()}) {
			t.Errorf("peer is %v", got)
		}
	})
	t.Run("its addresses and ports are taken", func(t *testing.T) {
		if s := l.run("new", []string{"bridge"}); s.ip(t, "bridge") == web.ip(t, "bridge") {
			t.Error("its address was given away")
		}
		if _, err := l.tryRun("thief", []string{"bridge"}, publish(tcpPort(8080, 80))); err == nil {
			t.Error("its port was given away")
		}
	})
	t.Run("what was not adopted is gone", func(t *testing.T) {
		l.unreachable(out, "tcp4", "198.51.100.1:8081")
		for _, p := range l.kernelPorts() {
			if strings.Contains(p, ":8081/") {
				t.Errorf("port is left: %s", p)
			}
		}
		if slices.Contains(l.veths(), gone.attachedVeth()) {
			t.Error("its interface is left")
		}
	})
	t.Run("and ends as any other", func(t *testing.T) {
		if err := web.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.unreachable(out, "tcp4", "198.51.100.1:8080")
	})
}

// attachedVeth is the interface of a sandbox of a manager that was closed.
func (s *Sandbox) attachedVeth() string { return s.endpoints[0].veth }

// The host's firewall is reloaded, and the rules that keep ports apart are lost.
func TestCVE_2025_54388_AFlushedTableComesBack(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	web := l.run("web", []string{"bridge"}, publish(tcpPort(8080, 80)))
	l.serve(web, ":80", "web")
	fw, err := apply.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	if err := fw.Delete(rules.IPv4, "skiff"); err != nil { // as "nft flush ruleset" does
		t.Fatal(err)
	}
	eventually(t, "table back", func() bool {
		ps, err := fw.Ports("skiff")
		return err == nil && len(ps) == 1
	})
	l.reaches(out, "tcp4", "198.51.100.1:8080", "web 198.51.100.2")
	if err := fw.Add(rules.Table{Name: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if err := l.Reconcile(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if ok, err := fw.Exists(rules.IPv4, "somebody"); !ok || err != nil {
		t.Errorf("somebody else's table: %v, %v", ok, err)
	}
	_ = fw.Delete(rules.IPv4, "somebody")
}

func TestNetworksOutliveTheDaemon(t *testing.T) {
	l := newLab(t)
	l.network("user", func(r *network.CreateRequest) {
		r.Labels = map[string]string{"a": "b"}
		r.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.9.0.0/24")}}}
	})
	before := l.List()
	// A host that was restarted has no bridges.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, bridges, _ := link.Owned(l.group)
	for _, b := range bridges {
		if err := link.DeleteOwned(b, l.group); err != nil {
			t.Fatal(err)
		}
	}
	l.start()
	text := func(ns []network.Inspect) (out []string) {
		for _, n := range ns {
			n.Created = time.Time{}
			out = append(out, fmt.Sprint(n.Network))
		}
		return out
	}
	if diff := cmp.Diff(text(before), text(l.List())); diff != "" {
		t.Error(diff)
	}
	fixed := l.run("fixed", []string{"user"}, func(s *SandboxSpec) {
		s.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.9.0.77")}
	})
	l.serve(fixed, ":80", "fixed")
	l.reaches(nil, "tcp4", "10.9.0.77:80", "fixed")
}

func TestAnAddressIsNotReusedWhileItsInterfaceLives(t *testing.T) {
	l := newLab(t)
	first := l.run("first", []string{"bridge"})
	l.process(first) // shares the namespace beyond the sandbox's end
	addr := first.ip(t, "bridge")
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := l.run("second", []string{"bridge"}); s.ip(t, "bridge") == addr {
		t.Errorf("%s is in use twice", addr)
	}
}

func TestAFixedAddressCanBeHadAgainAtOnce(t *testing.T) {
	l := newLab(t)
	l.network("user", func(r *network.CreateRequest) {
		r.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.9.0.0/24")}}}
	})
	for range 5 {
		s, err := l.tryRun("fixed", []string{"user"}, func(s *SandboxSpec) {
			s.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.9.0.77")}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkSandbox(b *testing.B) {
	for name, port := range map[string]bool{"bridge": false, "published": true, "user": false} {
		b.Run(name, func(b *testing.B) {
			l := newLab(b)
			net := "bridge"
			if name == "user" {
				l.network("user")
				net = "user"
			}
			info, err := l.Lookup(net)
			if err != nil {
				b.Fatal(err)
			}
			var made, closed []time.Duration
			for i := 0; b.Loop(); i++ {
				spec := SandboxSpec{ID: ids.New(), Name: "c", Endpoints: []EndpointSpec{{Network: info.ID}}}
				if port {
					spec.Ports = []PortSpec{tcpPort(0, 80)}
				}
				time.Sleep(20 * time.Millisecond) // as starts come: not back to back
				t0 := time.Now()
				s, err := l.NewSandbox(context.Background(), spec)
				if err != nil {
					b.Fatal(err)
				}
				t1 := time.Now()
				if err := s.Close(context.Background()); err != nil {
					b.Fatal(err)
				}
				made, closed = append(made, t1.Sub(t0)), append(closed, time.Since(t1))
			}
			slices.Sort(made)
			slices.Sort(closed)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(made[len(made)/2].Microseconds()), "new-p50-us")
			b.ReportMetric(float64(made[len(made)*9/10].Microseconds()), "new-p90-us")
			b.ReportMetric(float64(closed[len(closed)/2].Microseconds()), "close-p50-us")
		})
	}
}
