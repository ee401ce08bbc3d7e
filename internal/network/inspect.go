package network

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// NetworkInfo is what others need to know of a network before using it.
type NetworkInfo struct {
	ID, Name, Driver, Scope string
	Internal                bool
	UserDefined             bool // containers find each other by name; aliases work
	UserSubnet              bool // fixed addresses may be asked for
}

// Lookup finds a network by name, id or unique prefix of its id.
func (m *Manager) Lookup(nameOrID string) (NetworkInfo, error) {
	l, err := m.find(nameOrID)
	if err != nil {
		return NetworkInfo{}, err
	}
	return NetworkInfo{
		ID: l.rec.ID, Name: l.rec.Name, Driver: l.rec.Driver, Scope: l.rec.Scope,
		Internal: l.rec.Internal, UserDefined: l.named(), UserSubnet: l.userSubnet(),
	}, nil
}

func (l *lan) userSubnet() bool { return l.rec.IPAM.Options[optUserSubnet] != "" }

func (m *Manager) find(nameOrID string) (*lan, error) {
	all := m.all()
	var byName, byPrefix []*lan
	for _, l := range all {
		switch {
		case l.rec.ID == nameOrID:
			return l, nil
		case l.rec.Name == nameOrID:
			byName = append(byName, l)
		case nameOrID != "" && strings.HasPrefix(l.rec.ID, nameOrID):
			byPrefix = append(byPrefix, l)
		}
	}
	found := append(byName, byPrefix...)
	switch {
	case len(byName) == 1 || len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, errs.Newf(errs.Invalid, "network %s is ambiguous (%d matches found based on ID prefix)", nameOrID, len(found))
	}
	return nil, errs.Newf(errs.NotFound, "network %s not found", nameOrID)
}

// List describes all networks, by name.
func (m *Manager) List() []network.Inspect {
	all := m.all()
	out := make([]network.Inspect, len(all))
	for i, l := range all {
		out[i] = l.inspect()
	}
	return out
}

// Inspect describes one network.
func (m *Manager) Inspect(nameOrID string) (*network.Inspect, error) {
	l, err := m.find(nameOrID)
	if err != nil {
		return nil, err
	}
	i := l.inspect()
	return &i, nil
}

func (l *lan) inspect() network.Inspect {
	out := network.Inspect{Network: l.rec.Network, Containers: map[string]network.EndpointResource{}}
	out.IPAM.Options = maps.Clone(l.rec.IPAM.Options)
	delete(out.IPAM.Options, optUserSubnet)
	out.IPAM.Config = slices.Clone(l.rec.IPAM.Config)
	out.Options, out.Labels = maps.Clone(l.rec.Options), maps.Clone(l.rec.Labels)
	for _, e := range l.active() {
		out.Containers[e.sandbox.spec.ID] = network.EndpointResource{
			Name: e.sandbox.Name(), EndpointID: e.settings.EndpointID,
			MacAddress: e.settings.MacAddress, IPv4Address: e.addr,
		}
	}
	if l.rec.Driver != driverBridge {
		return out
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	used, free := l.pool.Used()
	out.Status = &network.Status{IPAM: network.IPAMStatus{Subnets: map[netip.Prefix]network.SubnetStatus{
		l.subnet: {IPsInUse: used, DynamicIPsAvailable: free},
	}}}
	return out
}
