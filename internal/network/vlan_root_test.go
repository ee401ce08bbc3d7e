//go:build root

package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// needsKinds skips where the kernel lacks kinds of interfaces.
func (l *lab) needsKinds(kinds ...string) {
	l.t.Helper()
	for _, k := range kinds {
		var err error
		if k == "dummy" { // which could be made
			err = errors.Join(l.rt.AddDummy("skiff-probe", 0), l.rt.Delete("skiff-probe"))
		} else {
			err = l.rt.Supports(k)
		}
		if err != nil {
			l.t.Skip(err)
		}
	}
}

// on makes a request for a network on a parent; option are "key=value".
func on(driver string, option ...string) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) {
		r.Driver, r.Options = driver, map[string]string{}
		for _, o := range option {
			k, v, _ := strings.Cut(o, "=")
			r.Options[k] = v
		}
	}
}

// wan gives a request the subnets of outside, whose other end is the gateway.
func wan(r *network.CreateRequest) {
	yes := true
	r.EnableIPv6 = &yes
	r.IPAM = &network.IPAM{Config: []network.IPAMConfig{
		{
			Subnet: netip.MustParsePrefix("198.51.100.0/24"), Gateway: mustAddr("198.51.100.2"),
			IPRange: netip.MustParsePrefix("198.51.100.64/26"), AuxAddress: map[string]netip.Addr{"host": mustAddr("198.51.100.1")},
		},
		{
			Subnet: netip.MustParsePrefix("2001:db8:99::/64"), Gateway: mustAddr("2001:db8:99::2"),
			AuxAddress: map[string]netip.Addr{"host": mustAddr("2001:db8:99::1")},
		},
	}}
}

// defaultRoutes writes the sandbox's default routes as "gateway interface".
func (l *lab) defaultRoutes(s *Sandbox) (out []string) {
	l.t.Helper()
	err := l.inside(s, func() error {
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteList(nil, family)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if ones, _ := r.Dst.Mask.Size(); ones > 0 || r.Type != 1 {
					continue
				}
				dev, err := netlink.LinkByIndex(r.LinkIndex)
				if err != nil {
					return err
				}
				gw := "-"
				if r.Gw != nil {
					gw = r.Gw.String()
				}
				out = append(out, gw+" "+dev.Attrs().Name)
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// hostLinks are the names of the host's interfaces, but for those made ahead.
func (l *lab) hostLinks() (out []string) {
	l.t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, nl := range links {
		if name := nl.Attrs().Name; !strings.HasPrefix(name, "veth") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func TestVLANWithoutKernel(t *testing.T) {
	l := newLab(t)
	for _, kind := range []string{link.Macvlan, link.IPvlan} {
		if l.rt.Supports(kind) == nil {
			t.Logf("the kernel has %s", kind)
			continue
		}
		_, err := l.Create(t.Context(), &network.CreateRequest{Name: "x", Driver: kind})
		if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "the kernel of this host has no "+kind+" interfaces") {
			t.Error(err)
		}
	}
	if _, made, _ := link.Owned(l.group); len(made) != 1 {
		t.Errorf("left: %v", made)
	}
}

func TestVLANModes(t *testing.T) {
	for name, tc := range map[string]struct {
		driver string
		opts   []string
		peers  bool // containers reach each other
	}{
		"macvlan bridge":  {link.Macvlan, nil, true},
		"macvlan private": {link.Macvlan, []string{"macvlan_mode=private"}, false},
		"macvlan vepa":    {link.Macvlan, []string{"macvlan_mode=vepa"}, false},
		"ipvlan l2":       {link.IPvlan, nil, true},
		"ipvlan private":  {link.IPvlan, []string{"ipvlan_flag=private"}, false},
		"ipvlan vepa":     {link.IPvlan, []string{"ipvlan_flag=vepa"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.needsKinds(tc.driver)
			out := l.outside()
			l.serve(out, ":80", "out")
			l.network("n", on(tc.driver, append(tc.opts, "parent=wan0")...), wan)
			a := l.run("a", []string{"n"}, publish(tcpPort(8080, 80)))
			b := l.run("b", []string{"n"})
			l.serve(a, ":80", "a")
			if got := a.ip(t, "n").String(); got != "198.51.100.64" {
				t.Errorf("address %s", got)
			}
			if diff := cmp.Diff([]string{"198.51.100.2 eth0", "2001:db8:99::2 eth0"}, l.defaultRoutes(a)); diff != "" {
				t.Error(diff)
			}
			v6 := "[" + a.Endpoints()["n"].GlobalIPv6Address.String() + "]:80"
			for _, from := range []*Sandbox{out, b} {
				if from == out || tc.peers {
					l.reaches(from, "tcp", "198.51.100.64:80", "a")
					l.reaches(from, "tcp", v6, "a")
				} else {
					l.unreachable(from, "tcp", "198.51.100.64:80")
				}
			}
			l.reaches(b, "tcp", "198.51.100.2:80", "out")
			l.reaches(b, "tcp", "[2001:db8:99::2]:80", "out")
			if ports := a.Ports(); len(ports) != 0 {
				t.Errorf("ports: %v", ports)
			}
			l.unreachable(nil, "tcp", "127.0.0.1:8080")
			if as, ok := (view{b}).Lookup("a"); !ok || as[0] != a.ip(t, "n") {
				t.Errorf("name: %v", as)
			}
		})
	}
}

// TestIPvlanL3: packets are routed by the host's table, and the neighbour must
// have a route back.
func TestIPvlanL3(t *testing.T) {
	for _, mode := range []string{"l3", "l3s"} {
		t.Run(mode, func(t *testing.T) {
			l := newLab(t)
			l.needsKinds(link.IPvlan)
			out := l.outside()
			l.serve(out, ":80", "out")
			yes := true
			l.network("n", on(link.IPvlan, "parent=wan0", "ipvlan_mode="+mode), func(r *network.CreateRequest) {
				r.EnableIPv6 = &yes
				r.IPAM = &network.IPAM{Config: []network.IPAMConfig{
					{Subnet: netip.MustParsePrefix("10.60.0.0/24")},
					{Subnet: netip.MustParsePrefix("10.61.0.0/24")},
					{Subnet: netip.MustParsePrefix("fd00:60::/64")},
				}}
			})
			err := l.inside(out, func() error {
				dev, err := netlink.LinkByName("wan1")
				if err != nil {
					return err
				}
				_, dst, _ := net.ParseCIDR("10.60.0.0/15")
				return netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: dst, Gw: net.ParseIP("198.51.100.1")})
			})
			if err != nil {
				t.Fatal(err)
			}
			at := func(v4, v6 string) func(*SandboxSpec) {
				return func(s *SandboxSpec) {
					s.Endpoints[0].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: mustAddr(v4), IPv6Address: mustAddr(v6)}
				}
			}
			sandbox := func(name, v4, v6 string) *Sandbox {
				t.Helper()
				s, err := l.tryRun(name, []string{"n"}, at(v4, v6))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close(context.Background()) })
				return s
			}
			a, b := sandbox("a", "10.60.0.7", "fd00:60::7"), sandbox("b", "10.61.0.8", "fd00:60::8")
			l.serve(a, ":80", "a")
			if diff := cmp.Diff([]string{"- eth0", "- eth0"}, l.defaultRoutes(a)); diff != "" {
				t.Error(diff)
			}
			e := a.Endpoints()["n"]
			if e.Gateway.IsValid() || e.IPv6Gateway.IsValid() || len(e.MacAddress) != 0 {
				t.Errorf("%+v", e)
			}
			l.reaches(b, "tcp", "10.60.0.7:80", "a") // of another subnet
			l.reaches(b, "tcp", "[fd00:60::7]:80", "a")
			l.reaches(out, "tcp", "10.60.0.7:80", "a")
			l.reaches(b, "tcp", "198.51.100.2:80", "out")
		})
	}
}

func TestVLANAddresses(t *testing.T) {
	l := newLab(t)
	l.needsKinds(link.Macvlan, link.IPvlan, "dummy")
	l.network("mac", on(link.Macvlan), func(r *network.CreateRequest) { r.IPAM = subnet("10.62.0.0/24") })
	l.network("ip", on(link.IPvlan), func(r *network.CreateRequest) { r.IPAM = subnet("10.63.0.0/24") })
	mac := network.HardwareAddr{2, 7, 7, 7, 7, 7}
	before := l.hostLinks()
	// The same addresses at once again: nothing of the one before is left.
	for range 10 {
		s := l.run("c", []string{"mac", "ip"}, func(sp *SandboxSpec) {
			sp.Endpoints[0].Settings.MacAddress = mac
			for i, a := range []string{"10.62.0.99", "10.63.0.99"} {
				sp.Endpoints[i].Settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: mustAddr(a)}
			}
		})
		err := l.inside(s, func() error {
			nl, err := netlink.LinkByName("eth0")
			if err == nil && !bytes.Equal(nl.Attrs().HardwareAddr, mac) {
				t.Errorf("it has the address %s", nl.Attrs().HardwareAddr)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, l.hostLinks()); diff != "" {
		t.Error(diff)
	}
	_, err := l.tryRun("c", []string{"ip"}, func(sp *SandboxSpec) { sp.Endpoints[0].Settings.MacAddress = mac })
	if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "ipvlan interfaces do not support custom mac address assignment") {
		t.Error(err)
	}
	first, second := l.run("a", []string{"mac"}).Endpoints()["mac"], l.run("b", []string{"mac"}).Endpoints()["mac"]
	if len(first.MacAddress) != 6 || bytes.Equal(first.MacAddress, second.MacAddress) {
		t.Errorf("hardware addresses %s and %s", first.MacAddress, second.MacAddress)
	}
}

func TestMacvlanPassthru(t *testing.T) {
	l := newLab(t)
	l.needsKinds(link.Macvlan)
	l.outside()
	own, err := link.HardwareAddr("wan0")
	if err != nil {
		t.Fatal(err)
	}
	l.network("n", on(link.Macvlan, "parent=wan0", "macvlan_mode=passthru"), wan)
	a := l.run("a", []string{"n"})
	if got := a.Endpoints()["n"].MacAddress; got.String() != own.String() {
		t.Errorf("it has %s, the parent %s", got, own)
	}
	if _, err := l.tryRun("b", []string{"n"}); err == nil {
		t.Error("two containers have the parent for themselves")
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked := network.HardwareAddr{2, 9, 9, 9, 9, 9}
	c := l.run("c", []string{"n"}, func(sp *SandboxSpec) { sp.Endpoints[0].Settings.MacAddress = asked })
	if got, _ := link.HardwareAddr("wan0"); got.String() != asked.String() {
		t.Errorf("the parent has %s", got)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := link.HardwareAddr("wan0"); got.String() != own.String() {
		t.Errorf("the parent kept %s", got)
	}
	_, err = l.Create(t.Context(), &network.CreateRequest{Name: "m", Driver: "macvlan", Options: map[string]string{"parent": "wan0"}})
	if !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "is already using parent interface wan0 in mode passthru") {
		t.Error(err)
	}
}

func TestVLANWithoutParent(t *testing.T) {
	for driver, prefix := range map[string]string{link.Macvlan: "dm-", link.IPvlan: "di-"} {
		t.Run(driver, func(t *testing.T) {
			l := newLab(t)
			l.needsKinds(driver, "dummy")
			parent := prefix + l.network("n", on(driver))[:12]
			if !link.Exists(parent) {
				t.Fatalf("no %s: %v", parent, l.hostLinks())
			}
			a, b := l.run("a", []string{"n"}), l.run("b", []string{"n"})
			l.serve(a, ":80", "a")
			l.reaches(b, "tcp", a.ip(t, "n").String()+":80", "a")
			if got := l.defaultRoutes(a); got != nil {
				t.Errorf("it leads out: %s", got)
			}
			if got := (view{a}).Upstreams(); got != nil {
				t.Errorf("names are asked for outside: %v", got)
			}
			// Beside a network that leads out.
			info, _ := l.Lookup("bridge")
			if err := a.Connect(t.Context(), EndpointSpec{Network: info.ID}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"172.17.0.1 eth1"}, l.defaultRoutes(a)); diff != "" {
				t.Error(diff)
			}
			if err := l.Remove(t.Context(), "n"); !errs.Is(err, errs.Denied) {
				t.Errorf("removed in use: %v", err)
			}
			for _, s := range []*Sandbox{a, b} {
				if err := s.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			// Somebody took the parent away: it is made again.
			if err := link.DeleteOwned(parent, l.group); err != nil {
				t.Fatal(err)
			}
			if err := l.run("c", []string{"n"}).Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := l.Remove(t.Context(), "n"); err != nil || link.Exists(parent) {
				t.Errorf("left: %v, %v", l.hostLinks(), err)
			}
		})
	}
}

func TestVLANTagged(t *testing.T) {
	l := newLab(t)
	l.needsKinds(link.Macvlan, link.IPvlan, "vlan")
	l.outside()
	create := func(name, driver, parent string) error {
		_, err := l.Create(t.Context(), &network.CreateRequest{Name: name, Driver: driver, Options: map[string]string{"parent": parent}})
		return err
	}
	for parent, text := range map[string]string{
		"nosuch": "invalid subinterface vlan name nosuch", "nosuch.5": "-o parent interface was not found on the host: nosuch",
		"wan0.5000": "vlan id must be between 1-4094", "wan0.1.2": "required interface name format",
	} {
		if err := create("x", "macvlan", parent); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", parent, err)
		}
	}
	before := l.hostLinks()
	for _, name := range []string{"m1", "m2"} {
		if err := create(name, "macvlan", "wan0.7"); err != nil {
			t.Fatal(err)
		}
	}
	if err := create("i1", "ipvlan", "wan0.8"); err != nil {
		t.Fatal(err)
	}
	if err := create("i2", "ipvlan", "wan0.8"); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "is already using parent interface wan0.8") {
		t.Errorf("ipvlan twice: %v", err)
	}
	if err := create("m3", "macvlan", "wan0.8"); err != nil {
		t.Fatal(err)
	}
	a := l.run("a", []string{"i1"})
	if _, err := l.tryRun("b", []string{"m3"}); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "in use by another kind") {
		t.Errorf("both kinds at once: %v", err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, err := netlink.LinkByName("wan0.7")
	if err != nil || v.Type() != "vlan" || v.(*netlink.Vlan).VlanId != 7 {
		t.Fatalf("%+v, %v", v, err)
	}
	c, d := l.run("c", []string{"m1"}), l.run("d", []string{"m1"})
	l.serve(c, ":80", "c")
	l.reaches(d, "tcp", c.ip(t, "m1").String()+":80", "c")
	for _, s := range []*Sandbox{c, d} {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ remove, iface, there string }{
		{"m1", "wan0.7", "true"}, {"m2", "wan0.7", "false"}, {"i1", "wan0.8", "true"}, {"m3", "wan0.8", "false"},
	} {
		if err := l.Remove(t.Context(), step.remove); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(link.Exists(step.iface)); got != step.there {
			t.Errorf("without %s: %s is there: %s", step.remove, step.iface, got)
		}
	}
	if diff := cmp.Diff(before, l.hostLinks()); diff != "" {
		t.Error(diff)
	}
	// One that was there before stays.
	nl, _ := netlink.LinkByName("wan0")
	if err := l.rt.AddVLAN("wan0.9", nl.Attrs().Index, 9, 0); err != nil {
		t.Fatal(err)
	}
	if err := create("m1", "macvlan", "wan0.9"); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(t.Context(), "m1"); err != nil || !link.Exists("wan0.9") {
		t.Errorf("somebody else's interface is gone (%v)", err)
	}
}
