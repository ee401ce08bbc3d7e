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
	"github.com/skiff-containers/skiff/internal/network/rules"
)

// Names of drivers.
const (
	driverBridge = "bridge"
	driverHost   = "host"
	driverNull   = "null"
)

// lan is one network: what is fixed, and who is on it.
type lan struct {
	rec    Record
	opts   bridgeOptions // of driver bridge
	subnet netip.Prefix
	index  int // of the bridge

	mu        sync.Mutex // guards what follows
	state     lanState
	pool      *ipam.Pool             // nil but for driver bridge
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

func (l *lan) predefined() bool {
	switch l.rec.Name {
	case network.NetworkBridge, network.NetworkHost, network.NetworkNone:
		return true
	}
	return false
}

// named reports whether containers find each other by name on it.
func (l *lan) named() bool { return l.rec.Driver == driverBridge && !l.predefined() }

func (l *lan) gateway() netip.Addr {
	if l.rec.Internal || len(l.rec.IPAM.Config) == 0 {
		return netip.Addr{}
	}
	return l.rec.IPAM.Config[0].Gateway
}

func (l *lan) firewall() rules.Network {
	return rules.Network{
		Bridge: l.opts.bridge, Subnet: l.subnet, ICC: l.opts.icc,
		Masquerade: l.opts.masquerade, Internal: l.rec.Internal,
	}
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

// join notes the endpoint and takes its address; a new one's settings are
// completed.
func (l *lan) join(e *endpoint, want netip.Addr) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != lanReady {
		return errs.Newf(errs.NotFound, "network %s not found", l.rec.Name)
	}
	if _, ok := l.endpoints[e.sandbox.spec.ID]; ok {
		return errs.Newf(errs.Denied, "endpoint with name %s already exists in network %s", e.sandbox.Name(), l.rec.Name)
	}
	if l.pool != nil {
		if want.IsValid() {
			err = l.pool.Take(want)
		} else {
			want, err = l.pool.Next()
		}
		if err != nil {
			return err
		}
		e.addr = netip.PrefixFrom(want, l.subnet.Bits())
		if e.settings.EndpointID == "" {
			e.fill()
		}
	}
	l.endpoints[e.sandbox.spec.ID] = e
	return nil
}

// leave forgets the endpoint; its address stays taken until release.
func (l *lan) leave(e *endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.endpoints[e.sandbox.spec.ID] == e {
		delete(l.endpoints, e.sandbox.spec.ID)
	}
	l.forgetNames(e)
}

func (l *lan) release(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pool != nil && a.IsValid() {
		l.pool.Release(a)
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
		out = append(out, e.addr.Addr())
	}
	return out
}

// reverse finds the container at an address.
func (l *lan) reverse(a netip.Addr) (*endpoint, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.endpoints {
		if e.addr.IsValid() && e.addr.Addr() == a {
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
