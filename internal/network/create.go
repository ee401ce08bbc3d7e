package network

import (
	"context"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/ipam"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// optUserSubnet marks, in a record's IPAM options, that the subnet was asked
// for: only then may containers ask for addresses. Not shown to clients.
const optUserSubnet = "skiff.user-subnet"

// Create makes a user-defined network.
func (m *Manager) Create(ctx context.Context, r *network.CreateRequest) (network.CreateResponse, error) {
	rec, err := m.declared(r)
	if err != nil {
		return network.CreateResponse{}, err
	}
	var used []netip.Prefix
	if !rec.IPAM.Config[0].Subnet.IsValid() {
		if used, err = link.Routes(""); err != nil {
			return network.CreateResponse{}, err
		}
	}
	l, err := m.reserve(rec, used)
	if err != nil {
		return network.CreateResponse{}, err
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { m.forget(l) })
	if err := m.raise(l); err != nil {
		return network.CreateResponse{}, err
	}
	undo.Push(func() {
		l.mu.Lock()
		l.state = lanRemoved
		l.mu.Unlock()
		_ = m.fw.setNetworks(m.firewallNetworks())
		_ = link.DeleteBridge(l.opts.bridge, m.group)
	})
	if err := m.fw.setNetworks(m.firewallNetworks()); err != nil {
		return network.CreateResponse{}, err
	}
	if err := m.o.Table.Put(l.rec.ID, l.rec); err != nil {
		return network.CreateResponse{}, err
	}
	undo.Release()
	m.publish(events.ActionCreate, l, nil)
	return network.CreateResponse{ID: l.rec.ID}, nil
}

// declared checks the request and makes the record; a subnet may be missing yet.
func (m *Manager) declared(r *network.CreateRequest) (Record, error) {
	if err := checkRequest(r); err != nil {
		return Record{}, err
	}
	rec := newRecord(r.Name, driverBridge)
	rec.Internal, rec.Attachable = r.Internal, r.Attachable
	maps.Copy(rec.Options, r.Options)
	maps.Copy(rec.Labels, r.Labels)
	cfg := network.IPAMConfig{}
	if r.IPAM != nil {
		maps.Copy(rec.IPAM.Options, r.IPAM.Options)
		if len(r.IPAM.Config) == 1 {
			cfg = r.IPAM.Config[0]
		}
	}
	if cfg.Subnet.IsValid() {
		rec.IPAM.Options[optUserSubnet] = strconv.FormatBool(true)
	} else if cfg.Gateway.IsValid() || cfg.IPRange.IsValid() || len(cfg.AuxAddress) > 0 {
		return Record{}, errs.New(errs.Invalid, "invalid network config:\na gateway, an ip-range and auxiliary addresses need a subnet")
	}
	rec.IPAM.Config = []network.IPAMConfig{cfg}
	return rec, nil
}

// networkName allows one letter too, unlike the names of containers.
var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

func checkRequest(r *network.CreateRequest) error {
	switch r.Name {
	case "":
		return errs.New(errs.Invalid, "invalid network name: name is empty")
	case network.NetworkBridge, network.NetworkHost, network.NetworkNone, network.NetworkDefault:
		return errs.Newf(errs.Denied, "operation is not permitted on predefined %s network", r.Name)
	}
	if !networkName.MatchString(r.Name) {
		return errs.Newf(errs.Invalid, "invalid network name: %q: want %s", r.Name, networkName)
	}
	switch r.Driver {
	case "", "default", driverBridge:
	case driverHost, driverNull:
		return errs.Newf(errs.Denied, "only one instance of \"%s\" network is allowed", r.Driver)
	case "macvlan", "ipvlan", "overlay":
		return errs.Newf(errs.Unsupported, "network driver %s is not supported: use bridge", r.Driver)
	default:
		return errs.Newf(errs.NotFound, "could not find plugin %s in v1 plugin registry: plugin not found", r.Driver)
	}
	switch {
	case r.EnableIPv6 != nil && *r.EnableIPv6:
		return errs.New(errs.Unsupported, "IPv6 networks are not supported yet")
	case r.EnableIPv4 != nil && !*r.EnableIPv4:
		return errs.New(errs.Unsupported, "networks without IPv4 are not supported")
	case r.Ingress, r.Scope != "" && r.Scope != "local":
		return errs.New(errs.Unsupported, "networks of a swarm are not supported")
	case r.ConfigOnly, r.ConfigFrom != nil && r.ConfigFrom.Network != "":
		return errs.New(errs.Unsupported, "config-only networks are not supported")
	}
	return checkIPAM(r.IPAM)
}

func checkIPAM(i *network.IPAM) error {
	if i == nil {
		return nil
	}
	if i.Driver != "" && i.Driver != "default" {
		return errs.Newf(errs.Unsupported, "IPAM driver %s is not supported", i.Driver)
	}
	for k := range i.Options {
		return errs.Newf(errs.Unsupported, "IPAM option %s is not supported", k)
	}
	if len(i.Config) > 1 {
		return errs.New(errs.Unsupported, "more than one subnet in a network is not supported")
	}
	for _, c := range i.Config {
		if c.Subnet.IsValid() && !c.Subnet.Addr().Is4() {
			return errs.New(errs.Unsupported, "IPv6 networks are not supported yet")
		}
	}
	return nil
}

// reserve takes name, subnet and interface of a network that does not exist yet.
func (m *Manager) reserve(rec Record, routed []netip.Prefix) (*lan, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var subnets []netip.Prefix
	for _, other := range m.lans {
		if other.rec.Name == rec.Name {
			return nil, errs.Newf(errs.Conflict, "network with name %s already exists", rec.Name)
		}
		if other.subnet.IsValid() {
			subnets = append(subnets, other.subnet)
		}
	}
	c := &rec.IPAM.Config[0]
	if c.Subnet.IsValid() {
		if slices.ContainsFunc(subnets, c.Subnet.Overlaps) {
			return nil, errs.New(errs.Denied, "invalid pool request: Pool overlaps with other one on this address space")
		}
	} else {
		var err error
		if c.Subnet, err = ipam.Choose(m.o.Pools, append(subnets, routed...)); err != nil {
			return nil, err
		}
	}
	l, err := m.userLAN(rec)
	if err != nil {
		return nil, err
	}
	for _, other := range m.lans {
		if other.opts.bridge == l.opts.bridge {
			return nil, errs.Newf(errs.Denied, "conflicts with network %s (%s): networks have same bridge name", other.rec.ID, other.rec.Name)
		}
	}
	m.lans[rec.ID] = l
	return l, nil
}

func (m *Manager) forget(l *lan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.lans, l.rec.ID)
}
