package network

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/ipam"
	"github.com/skiff-containers/skiff/internal/network/link"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

// Names of drivers.
const (
	driverBridge  = "bridge"
	driverHost    = "host"
	driverNull    = "null" // of config-only networks, too
	driverMacvlan = link.Macvlan
	driverIPvlan  = link.IPvlan
)

// lan is one network: what is fixed, and who is on it.
type lan struct {
	rec   Record
	opts  bridgeOptions // of driver bridge; what names and sizes interfaces is of every driver
	index int           // of the bridge
	vlan  *vlanOptions  // of drivers macvlan and ipvlan; nil: of another

	mu        sync.Mutex // guards what follows
	state     lanState
	v4, v6    ipam.Set               // which subnets are in them is fixed
	endpoints map[string]*endpoint   // by id of the sandbox
	names     map[string][]*endpoint // lower case; of user-defined networks
}

// lanState is where a network is between its creation and its removal.
type lanState uint8

const (
	lanMaking  lanState = iota // its name and subnet are taken; not to be found yet
	lanReady                   // to be found and used
	lanRemoved                 // gone, or going
)

func newLAN(r Record, o bridgeOptions) *lan {
	return &lan{rec: r, opts: o, endpoints: map[string]*endpoint{}, names: map[string][]*endpoint{}}
}

func (l *lan) predefined() bool { return predefined(l.rec.Name) }

func predefined(name string) bool {
	switch name {
	case network.NetworkBridge, network.NetworkHost, network.NetworkNone:
		return true
	}
	return false
}

// named reports whether containers find each other by name on it.
func (l *lan) named() bool { return l.attachable() && !l.predefined() }

// attachable reports whether containers have interfaces on it.
func (l *lan) attachable() bool { return l.rec.Driver == driverBridge || l.vlan != nil }

// iface is the interface of the host that the network is made of; "" if of none.
func (l *lan) iface() string {
	if l.vlan != nil {
		return l.vlan.parent
	}
	return l.opts.bridge
}

// internal reports whether nothing leads out of it.
func (l *lan) internal() bool { return l.rec.Internal || l.vlan != nil && l.vlan.alone }

func (l *lan) set(v6 bool) ipam.Set {
	if v6 {
		return l.v6
	}
	return l.v4
}

// subnets are those of a family.
func (l *lan) subnets(v6 bool) (out []netip.Prefix) {
	for _, p := range l.set(v6) {
		out = append(out, p.Subnet())
	}
	return out
}

// publishes reports whether ports can be published on it.
func (l *lan) publishes() bool { return l.rec.Driver == driverBridge }

// own is the address of the bridge, or of another router of the network.
func (l *lan) own(v6 bool) netip.Addr {
	if s := l.set(v6); len(s) > 0 {
		return s[0].Gateway()
	}
	return netip.Addr{}
}

// leads is where a family of the network leads to from an address on it; zero:
// nowhere; unspecified: to everywhere without a gateway.
func (l *lan) leads(v6 bool, from netip.Addr) netip.Addr {
	switch {
	case !from.IsValid() || l.internal() || l.opts.mode(v6) == modeIsolated:
		return netip.Addr{}
	case l.vlan != nil && l.vlan.routes():
		return unspecified(v6)
	case l.vlan != nil:
		return l.set(v6).Gateway(from)
	}
	name := auxGateway
	if v6 {
		name = auxGateway6
	}
	for _, c := range l.rec.IPAM.Config {
		if a, ok := c.AuxAddress[name]; ok {
			return a
		}
	}
	return l.set(v6).Gateway(from)
}

func unspecified(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func (l *lan) firewall() rules.Network {
	of := func(v6 bool) rules.Subnet {
		var s rules.Subnet
		if all := l.subnets(v6); len(all) > 0 {
			mode := l.opts.mode(v6)
			s.Prefix, s.Routed, s.Open = all[0], mode == modeRouted, mode == modeNATOpen
			s.Masquerade = l.opts.masquerade && !s.Routed
		}
		return s
	}
	n := rules.Network{Bridge: l.opts.bridge, ICC: l.opts.icc, Internal: l.rec.Internal, V4: of(false), V6: of(true)}
	if l.opts.trusted != "" {
		n.Trusted = strings.Split(l.opts.trusted, ":")
	}
	return n
}

// firewallNetworks are the bridges for the host's table.
func (m *Manager) firewallNetworks() []rules.Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []rules.Network
	for _, l := range m.lans {
		l.mu.Lock()
		if l.rec.Driver == driverBridge && l.state != lanRemoved {
			out = append(out, l.firewall())
		}
		l.mu.Unlock()
	}
	return out
}

// join notes the endpoint and takes its addresses: those it wants, where it wants
// certain ones. A new one's settings are completed.
func (l *lan) join(e *endpoint, want4, want6 netip.Addr) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != lanReady {
		return errs.Newf(errs.NotFound, "network %s not found", l.rec.Name)
	}
	if _, ok := l.endpoints[e.sandbox.spec.ID]; ok {
		return errs.Newf(errs.Denied, "endpoint with name %s already exists in network %s", e.sandbox.Name(), l.rec.Name)
	}
	if e.addr, err = take(l.v4, want4); err != nil {
		return err
	}
	if e.addr6, err = take(l.v6, want6); err != nil {
		l.v4.Release(e.addr.Addr())
		return err
	}
	if e.settings.EndpointID == "" {
		e.fill()
	}
	l.endpoints[e.sandbox.spec.ID] = e
	return nil
}

func take(s ipam.Set, want netip.Addr) (netip.Prefix, error) {
	switch {
	case len(s) == 0:
		return netip.Prefix{}, nil
	case want.IsValid():
		return s.Take(want)
	}
	return s.Next()
}

// leave forgets the endpoint; its addresses stay taken until release.
func (l *lan) leave(e *endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.endpoints[e.sandbox.spec.ID] == e {
		delete(l.endpoints, e.sandbox.spec.ID)
	}
	l.forgetNames(e)
}

func (l *lan) release(as []netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range as {
		l.set(a.Is6()).Release(a)
	}
}

// setNames makes the endpoint known by these names instead of those before.
func (l *lan) setNames(e *endpoint, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetNames(e)
	for _, n := range names {
		n = strings.ToLower(n)
		if !slices.Contains(e.known, n) {
			e.known = append(e.known, n)
			l.names[n] = append(l.names[n], e)
		}
	}
}

func (l *lan) forgetNames(e *endpoint) {
	for _, n := range e.known {
		rest := slices.DeleteFunc(l.names[n], func(x *endpoint) bool { return x == e })
		if len(rest) == 0 {
			delete(l.names, n)
		} else {
			l.names[n] = rest
		}
	}
	e.known = nil
}

// lookup finds the addresses of a name.
func (l *lan) lookup(name string) []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []netip.Addr
	for _, e := range l.names[name] {
		out = append(out, e.addrs()...)
	}
	return out
}

// reverse finds the container at an address.
func (l *lan) reverse(a netip.Addr) (*endpoint, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.endpoints {
		if slices.Contains(e.addrs(), a) {
			return e, true
		}
	}
	return nil, false
}

// active lists the endpoints in the order of their sandboxes' ids.
func (l *lan) active() []*endpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Values(l.endpoints), func(a, b *endpoint) int {
		return cmp.Compare(a.sandbox.spec.ID, b.sandbox.spec.ID)
	})
}
