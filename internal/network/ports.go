package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

// Ports that are chosen come from here, as in docker.
const (
	ephemeralFirst = 32768
	ephemeralLast  = 60999
)

// portTable knows the host's ports that our containers have. A port is reserved
// by a listening socket too, so that nobody else takes it; packets do not reach
// it where they are translated before.
type portTable struct {
	mu    sync.Mutex // guards what follows
	taken map[protoPort][]netip.Addr
	next  map[network.IPProtocol]uint16 // where the search for a free one goes on
}

type protoPort struct {
	proto network.IPProtocol
	port  uint16
}

func newPortTable() *portTable {
	return &portTable{taken: map[protoPort][]netip.Addr{}, next: map[network.IPProtocol]uint16{}}
}

// claim notes the port as taken at the addresses; false if one of them, or an
// address that covers it, has it already.
func (t *portTable) claim(p protoPort, addrs []netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, have := range t.taken[p] {
		for _, a := range addrs {
			if have == a || have.Is4() == a.Is4() && (have.IsUnspecified() || a.IsUnspecified()) {
				return false
			}
		}
	}
	t.taken[p] = append(t.taken[p], addrs...)
	return true
}

func (t *portTable) release(p protoPort, addrs []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := slices.DeleteFunc(t.taken[p], func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	if len(rest) == 0 {
		delete(t.taken, p)
	} else {
		t.taken[p] = rest
	}
}

// candidates lists the host's ports that the spec allows, in the order to try.
func (t *portTable) candidates(s PortSpec) (first, last, start uint16) {
	if s.HostPort != 0 {
		return s.HostPort, max(s.HostPort, s.HostEnd), s.HostPort
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	start = t.next[s.Container.Proto()]
	if start < ephemeralFirst || start > ephemeralLast {
		start = ephemeralFirst
	}
	t.next[s.Container.Proto()] = start + 1
	return ephemeralFirst, ephemeralLast, start
}

// binding is one published port.
type binding struct {
	spec    PortSpec
	port    protoPort // of the host; 0: nothing of the host's was taken
	claimed []netip.Addr
	targets []target // those that the host has an address for
	socks   []io.Closer
}

// target is one address of the host and where it leads.
type target struct {
	host    netip.Addr
	to      netip.Addr
	routed  bool // the container is reached by its own address alone
	trusted bool // and by some interfaces
}

// bind reserves a port of the host for the spec.
func (m *Manager) bind(s PortSpec, g gateways) (*binding, error) {
	switch s.Container.Proto() {
	case network.TCP, network.UDP, network.SCTP:
	default:
		return nil, errs.Newf(errs.Invalid, "publish port %s: invalid protocol: only tcp, udp and sctp ports can be published", s.Container)
	}
	all := m.targets(s.HostIP, g)
	if s.Container.Proto() == network.SCTP {
		var err error
		if all, err = translated(all, s); err != nil {
			return nil, err
		}
	}
	var served []target
	for _, t := range all {
		if !t.routed {
			served = append(served, t)
		}
	}
	if len(served) == 0 {
		return &binding{spec: s, port: protoPort{s.Container.Proto(), 0}, targets: all}, nil
	}
	first, last, start := m.ports.candidates(s)
	var lastErr error
	port := start
	for range int(last) - int(first) + 1 {
		b, err := m.bindOne(s, served, port)
		if err == nil {
			for _, t := range all {
				if t.routed {
					b.targets = append(b.targets, t)
				}
			}
			slices.SortStableFunc(b.targets, func(a, b target) int { return a.host.Compare(b.host) })
			return b, nil
		}
		lastErr = err
		if !errs.Is(err, errs.Conflict) {
			break // another port would not help
		}
		if port++; port > last || port < first {
			port = first
		}
	}
	// Docker answers these with status 500.
	return nil, errs.With(errs.Internal, lastErr)
}

// targets are the addresses of the host to publish on. Each leads to the
// container's address of the same family; IPv6 to that of IPv4, by a socket of
// ours, if there is no other. None are left where the container has no way in.
func (m *Manager) targets(asked netip.Addr, g gateways) (out []target) {
	v4, v6 := g.v4, g.v6
	if v4 != nil && !v4.lan.publishes() {
		v4 = nil
	}
	if v6 != nil && !v6.lan.publishes() {
		v6 = nil
	}
	def := asked.Unmap()
	switch {
	case def.IsValid():
	case v4 != nil:
		def = v4.lan.opts.hostBinding
	case v6 != nil:
		def = v6.lan.opts.hostBinding
	}
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	if v4 != nil && (!def.IsValid() || def.Is4()) {
		out = append(out, m.newTarget(v4, false, orAddr(def, any4)))
	}
	if def.IsValid() && def.Is4() {
		return out
	}
	switch {
	case v6 != nil:
		out = append(out, m.newTarget(v6, true, orAddr(def, any6)))
	case v4 != nil && !m.o.NoProxy && !asked.Is4():
		out = append(out, target{host: orAddr(def, any6), to: v4.addr.Addr()})
	}
	return out
}

// translated reports whether the firewall can lead there; a socket of ours
// serves what another family has, or is for this host's own link alone.
func (t target) translated() bool {
	own := t.host.Is6() && (t.host.IsLoopback() || t.host.IsLinkLocalUnicast())
	return !own && t.host.Is6() == t.to.Is6()
}

func (m *Manager) newTarget(e *endpoint, v6 bool, host netip.Addr) target {
	t := target{host: host, to: e.prefix(v6).Addr(), trusted: m.o.AllowDirect || e.lan.opts.trusted != ""}
	if e.lan.opts.mode(v6) == modeRouted {
		t.routed, t.host = true, netip.IPv4Unspecified()
		if v6 {
			t.host = netip.IPv6Unspecified()
		}
	}
	return t
}

func orAddr(a, b netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return b
}

// bindOne reserves one port on all addresses; an error of kind Conflict means
// that it is somebody's already.
func (m *Manager) bindOne(s PortSpec, ts []target, port uint16) (*binding, error) {
	pp := protoPort{s.Container.Proto(), port}
	var addrs []netip.Addr
	for _, t := range ts {
		addrs = append(addrs, t.host)
	}
	if !m.ports.claim(pp, addrs) {
		return nil, errs.Newf(errs.Conflict, "Bind for %s failed: port is already allocated", netip.AddrPortFrom(addrs[0], port))
	}
	b := &binding{spec: s, port: pp, claimed: addrs}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { m.ports.release(pp, addrs) })
	undo.Push(b.closeSockets)
	for _, t := range ts {
		a, to := t.host, netip.AddrPortFrom(t.to, s.Container.Num())
		sock, err := m.listen(pp, a, to)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) && a.IsUnspecified() {
			continue // a host without IPv6
		}
		if err != nil {
			return nil, hostPortError(netip.AddrPortFrom(a, port), to, pp.proto, err)
		}
		b.targets = append(b.targets, t)
		b.socks = append(b.socks, sock)
	}
	undo.Release()
	return b, nil
}

func hostPortError(host, to netip.AddrPort, proto network.IPProtocol, err error) error {
	kind, reason := errs.Internal, err
	var errno unix.Errno
	if errors.As(err, &errno) {
		reason = errno
		if errno == unix.EADDRINUSE {
			kind = errs.Conflict
		}
	}
	return errs.Newf(kind, "failed to bind host port for %s:%s:%d/%s: %w",
		host, to.Addr(), to.Port(), proto, reason)
}

// listen opens the socket that reserves a port, and serves it.
func (m *Manager) listen(p protoPort, a netip.Addr, to netip.AddrPort) (io.Closer, error) {
	family := "4"
	if a.Is6() {
		family = "6"
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	host := netip.AddrPortFrom(a, p.port).String()
	if p.proto == network.SCTP {
		return m.reserveSCTP(netip.AddrPortFrom(a, p.port))
	}
	if p.proto == network.UDP {
		c, err := lc.ListenPacket(context.Background(), "udp"+family, host)
		if err != nil {
			return nil, err
		}
		return m.proxyUDP(c.(*net.UDPConn), to), nil
	}
	l, err := lc.Listen(context.Background(), "tcp"+family, host)
	if err != nil {
		return nil, err
	}
	return m.proxyTCP(l, to), nil
}

func (b *binding) closeSockets() {
	for _, s := range b.socks {
		_ = s.Close()
	}
	b.socks = nil
}

// unbind gives the port back.
func (m *Manager) unbind(b *binding) {
	b.closeSockets()
	m.ports.release(b.port, b.claimed)
}

// rules are the elements that publish the binding. What another family serves,
// or is for this host's own link alone, has none.
func (b *binding) rules() []rules.Port {
	var out []rules.Port
	for _, t := range b.targets {
		p := rules.Port{Proto: string(b.port.proto), To: netip.AddrPortFrom(t.to, b.spec.Container.Num())}
		if t.routed || t.trusted {
			out = append(out, p)
		}
		if !t.routed && t.translated() {
			p.Host = netip.AddrPortFrom(t.host, b.port.port)
			out = append(out, p)
		}
	}
	return out
}

// portMap describes bindings as the API does.
func portMap(bs []*binding) network.PortMap {
	out := network.PortMap{}
	for _, b := range bs {
		for _, t := range b.targets {
			pb := network.PortBinding{HostIP: t.host}
			if !t.routed {
				pb.HostPort = strconv.Itoa(int(b.port.port))
			}
			out[b.spec.Container] = append(out[b.spec.Container], pb)
		}
	}
	return out
}

// publishPorts reserves and publishes the sandbox's ports on the endpoints that
// lead out.
func (m *Manager) publishPorts(g gateways, specs []PortSpec) (bs []*binding, err error) {
	e := g.v4
	if e == nil {
		e = g.v6
	}
	if len(specs) == 0 || e == nil {
		return nil, nil
	}
	if all := []*endpoint{g.v4, g.v6}; !slices.ContainsFunc(all, func(e *endpoint) bool { return e != nil && e.lan.publishes() }) {
		m.o.Log.WarnContext(context.Background(), "published ports are discarded: the network has none", "container", e.sandbox.spec.ID, "network", e.lan.rec.Name)
		return nil, nil
	}
	defer func() {
		if err != nil {
			for _, b := range bs {
				m.unbind(b)
			}
			bs = nil
			err = fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w",
				e.sandbox.Name(), e.settings.EndpointID, err)
		}
	}()
	var elements []rules.Port
	for _, s := range fixedFirst(specs) {
		b, err := m.bind(s, g)
		if err != nil {
			return bs, err
		}
		bs = append(bs, b)
		elements = append(elements, b.rules()...)
	}
	if err := m.fw.publish(elements); err != nil {
		return bs, err
	}
	m.forgetFlows(bs)
	return bs, nil
}

// fixedFirst puts specs that want a certain port before those that take any.
func fixedFirst(specs []PortSpec) []PortSpec {
	out := slices.Clone(specs)
	slices.SortStableFunc(out, func(a, b PortSpec) int { return width(a) - width(b) })
	return out
}

func width(s PortSpec) int {
	switch {
	case s.HostPort == 0:
		return 1 << 16
	case s.HostEnd > s.HostPort:
		return int(s.HostEnd - s.HostPort)
	}
	return 0
}

// withdrawPorts is the inverse of publishPorts.
func (m *Manager) withdrawPorts(bs []*binding) error {
	var elements []rules.Port
	for _, b := range bs {
		elements = append(elements, b.rules()...)
	}
	err := m.fw.withdraw(elements)
	for _, b := range bs {
		m.unbind(b)
	}
	m.forgetFlows(bs)
	return err
}
