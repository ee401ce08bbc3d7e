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
// by a listening socket too, so that nobody else takes it; packets never reach
// it, for they are translated before: only IPv6, which has no translation, is
// served by it.
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
	port    protoPort // of the host
	claimed []netip.Addr
	addrs   []netip.Addr // of claimed, those that the host has
	to      netip.AddrPort
	socks   []io.Closer
}

// bind reserves a port of the host for the spec.
func (m *Manager) bind(s PortSpec, def netip.Addr, to netip.Addr) (*binding, error) {
	if p := s.Container.Proto(); p != network.TCP && p != network.UDP {
		return nil, errs.Newf(errs.Unsupported, "publish port %s: only tcp and udp ports can be published", s.Container)
	}
	addrs := m.hostAddrs(s.HostIP, def)
	first, last, start := m.ports.candidates(s)
	var lastErr error
	port := start
	for range int(last) - int(first) + 1 {
		b, err := m.bindOne(s, addrs, port, netip.AddrPortFrom(to, s.Container.Num()))
		if err == nil {
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

// hostAddrs are the addresses of the host to publish on.
func (m *Manager) hostAddrs(asked, def netip.Addr) []netip.Addr {
	switch {
	case asked.IsValid():
		return []netip.Addr{asked.Unmap()}
	case def.IsValid():
		return []netip.Addr{def}
	case m.o.NoProxy:
		return []netip.Addr{netip.IPv4Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// bindOne reserves one port on all addresses; an error of kind Conflict means
// that it is somebody's already.
func (m *Manager) bindOne(s PortSpec, addrs []netip.Addr, port uint16, to netip.AddrPort) (*binding, error) {
	pp := protoPort{s.Container.Proto(), port}
	if !m.ports.claim(pp, addrs) {
		return nil, errs.Newf(errs.Conflict, "Bind for %s failed: port is already allocated", netip.AddrPortFrom(addrs[0], port))
	}
	b := &binding{spec: s, port: pp, claimed: addrs, to: to}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { m.ports.release(pp, addrs) })
	undo.Push(b.closeSockets)
	for _, a := range addrs {
		sock, err := m.listen(pp, a, to)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) && a.IsUnspecified() {
			continue // a host without IPv6
		}
		if err != nil {
			return nil, hostPortError(netip.AddrPortFrom(a, port), to, pp.proto, err)
		}
		b.addrs = append(b.addrs, a)
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

// rules are the map elements that publish the binding: IPv4 only.
func (b *binding) rules() []rules.Port {
	var out []rules.Port
	for _, a := range b.addrs {
		if a.Is4() {
			out = append(out, rules.Port{
				Host: netip.AddrPortFrom(a, b.port.port), Proto: string(b.port.proto), To: b.to,
			})
		}
	}
	return out
}

// portMap describes bindings as the API does.
func portMap(bs []*binding) network.PortMap {
	out := network.PortMap{}
	for _, b := range bs {
		for _, a := range b.addrs {
			out[b.spec.Container] = append(out[b.spec.Container], network.PortBinding{
				HostIP: a, HostPort: strconv.Itoa(int(b.port.port)),
			})
		}
	}
	return out
}

// publishPorts reserves and publishes the sandbox's ports on its endpoint.
func (m *Manager) publishPorts(e *endpoint, specs []PortSpec) (bs []*binding, err error) {
	if len(specs) == 0 {
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
		b, err := m.bind(s, e.lan.opts.hostBinding, e.addr.Addr())
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
