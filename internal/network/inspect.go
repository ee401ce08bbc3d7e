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
}

// Lookup finds a network by name, id or unique prefix of its id.
func (m *Manager) Lookup(nameOrID string) (NetworkInfo, error) {
	l, err := m.find(nameOrID)
	if err != nil {
		return NetworkInfo{}, err
	}
	return NetworkInfo{
		ID: l.rec.ID, Name: l.rec.Name, Driver: l.rec.Driver, Scope: l.rec.Scope,
		Internal: l.rec.Internal, UserDefined: l.named(),
	}, nil
}

func (l *lan) userSubnet(v6 bool) bool { return l.rec.IPAM.Options[userSubnet(v6)] != "" }

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
	for _, v6 := range []bool{false, true} {
		delete(out.IPAM.Options, userSubnet(v6))
	}
	if out.IPAM.Options[optNoOptions] != "" {
		out.IPAM.Options = nil
	}
	out.IPAM.Config = slices.Clone(l.rec.IPAM.Config)
	out.Options, out.Labels = maps.Clone(l.rec.Options), maps.Clone(l.rec.Labels)
	for _, e := range l.active() {
		out.Containers[e.sandbox.spec.ID] = network.EndpointResource{
			Name: e.sandbox.Name(), EndpointID: e.settings.EndpointID,
			MacAddress: e.settings.MacAddress, IPv4Address: e.addr, IPv6Address: e.addr6,
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	subnets := map[netip.Prefix]network.SubnetStatus{}
	for _, p := range slices.Concat(l.v4, l.v6) {
		used, free := p.Used()
		subnets[p.Subnet()] = network.SubnetStatus{IPsInUse: used, DynamicIPsAvailable: free}
	}
	if len(subnets) > 0 {
		out.Status = &network.Status{IPAM: network.IPAMStatus{Subnets: subnets}}
	}
	return out
}
