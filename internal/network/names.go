package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/network/apply"
	"github.com/skiff-containers/skiff/internal/network/dns"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

// resolverAddr is where containers on user-defined networks ask for names, as
// in docker.
var resolverAddr = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// resolverTable is the table inside the container's namespace.
const resolverTable = "skiff_dns"

// dnsNames are the names of the container on a user-defined network.
func (s *Sandbox) dnsNames(aliases []string) []string {
	names := []string{s.Name()}
	for _, n := range append(slices.Clone(aliases), ids.Short(s.spec.ID), s.spec.Hostname) {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// needsResolver: names are for user-defined networks.
func (s *Sandbox) needsResolver() bool { return needNames(s.attached()) }

func needNames(es []*endpoint) bool {
	return slices.ContainsFunc(es, func(e *endpoint) bool { return e.lan.named() })
}

// nameSockets are where a resolver listens.
type nameSockets struct {
	udp *net.UDPConn
	tcp net.Listener
}

func (n *nameSockets) close() { _, _ = n.udp.Close(), n.tcp.Close() }

// openNames opens sockets inside a namespace and leads port 53 there. In an
// adopted one the rules of the daemon before are replaced.
func (m *Manager) openNames(ns *os.File, adopted bool) (*nameSockets, error) {
	n := &nameSockets{}
	err := m.spaces.In(ns, func() (err error) {
		at := netip.AddrPortFrom(resolverAddr, 0)
		if n.udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		if n.tcp, err = lc.Listen(context.Background(), "tcp4", at.String()); err != nil {
			_ = n.udp.Close()
			return err
		}
		if err = redirectNames(n.udp, n.tcp, adopted); err != nil {
			n.close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a resolver's sockets: %w", err)
	}
	return n, nil
}

// startResolver answers names at sockets made ahead, or at new ones.
func (s *Sandbox) startResolver(n *nameSockets, adopted bool) (err error) {
	if n == nil {
		if n, err = s.m.openNames(s.ns, adopted); err != nil {
			return err
		}
	}
	srv := dns.Serve(n.udp, n.tcp, view{s}, s.m.o.Log)
	s.mu.Lock()
	s.resolver = srv
	s.mu.Unlock()
	return nil
}

// redirectNames leads port 53 to the sockets, in the calling thread's namespace.
func redirectNames(udp *net.UDPConn, tcp net.Listener, replace bool) error {
	fw, err := apply.Open()
	if err != nil {
		return err
	}
	defer func() { _ = fw.Close() }()
	t := rules.Resolver(resolverTable, resolverAddr,
		uint16(udp.LocalAddr().(*net.UDPAddr).Port), uint16(tcp.Addr().(*net.TCPAddr).Port))
	if replace {
		return fw.Replace(t)
	}
	return fw.Add(t)
}

// view is what the resolver of a sandbox knows.
type view struct{ s *Sandbox }

// Lookup finds a container on the sandbox's networks: by a name of its own, by
// "name.network", or by the alias of a link.
func (v view) Lookup(name string) ([]netip.Addr, bool) {
	for _, e := range v.s.attached() {
		if !e.lan.named() {
			continue
		}
		if as := v.linked(e, name); len(as) > 0 {
			return as, true
		}
		if as := e.lan.lookup(name); len(as) > 0 {
			return as, true
		}
		if short, ok := strings.CutSuffix(name, "."+strings.ToLower(e.lan.rec.Name)); ok {
			if as := e.lan.lookup(short); len(as) > 0 {
				return as, true
			}
		}
	}
	return nil, false
}

func (v view) linked(e *endpoint, name string) []netip.Addr {
	for _, l := range e.settings.Links {
		target, alias := splitLink(l)
		if strings.EqualFold(alias, name) {
			return v.s.m.addressesOn(e.lan, target)
		}
	}
	return nil
}

// splitLink reads "container:alias".
func splitLink(l string) (target, alias string) {
	target, alias, ok := strings.Cut(strings.TrimPrefix(l, "/"), ":")
	if !ok {
		alias = target
	}
	return target, alias[strings.LastIndexByte(alias, '/')+1:]
}

// addressesOn finds a container's addresses on a network.
func (m *Manager) addressesOn(l *lan, ref string) []netip.Addr {
	s := m.byName(ref)
	if s == nil {
		return nil
	}
	for _, e := range s.attached() {
		if e.lan == l {
			return e.addrs()
		}
	}
	return nil
}

// Reverse names the container at an address of one of the sandbox's networks.
func (v view) Reverse(a netip.Addr) (string, bool) {
	for _, e := range v.s.attached() {
		if !e.lan.named() {
			continue
		}
		if other, ok := e.lan.reverse(a); ok {
			return other.sandbox.Name() + "." + e.lan.rec.Name, true
		}
	}
	return "", false
}

// Upstreams are the resolvers behind: none for a sandbox whose networks are all
// internal, for a question would leave where packets may not (CVE-2024-29018).
func (v view) Upstreams() []dns.Upstream {
	if !slices.ContainsFunc(v.s.attached(), func(e *endpoint) bool { return !e.lan.internal() }) {
		return nil
	}
	var out []dns.Upstream
	for _, u := range v.s.config.upstreams {
		dial := dialHost
		if !u.host {
			dial = v.s.dialInside
		}
		out = append(out, dns.Upstream{Addr: netip.AddrPortFrom(u.addr, 53), Dial: dial})
	}
	return out
}

func dialHost(ctx context.Context, network string, a netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	return d.DialContext(ctx, network, a.String())
}

// dialInside dials from within the sandbox: a resolver that was asked for may be
// another container. Its goroutine may die with its thread, so dialing must stay
// on it: an address that needs no lookup and has no alternatives does.
func (s *Sandbox) dialInside(ctx context.Context, network string, a netip.AddrPort) (c net.Conn, err error) {
	err = s.m.spaces.In(s.ns, func() (err error) {
		c, err = dialHost(ctx, network, a)
		return err
	})
	return c, err
}
