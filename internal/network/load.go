package network

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/network/ipam"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// load brings up the networks of the database, and the predefined ones, which
// get a row at the first start so that their ids last.
func (m *Manager) load(ctx context.Context) error {
	records, err := m.o.Table.All()
	if err != nil {
		// The rows that can be read still count: one bad row must not take
		// every container's network away.
		m.o.Log.ErrorContext(ctx, "cannot read some networks", "error", err)
	}
	byName := map[string]Record{}
	for _, r := range records {
		byName[r.Name] = r
	}
	for name, driver := range map[string]string{network.NetworkHost: driverHost, network.NetworkNone: driverNull} {
		if err := m.loadPlain(byName, name, driver); err != nil {
			return err
		}
	}
	if err := m.loadDefault(byName, records); err != nil {
		return err
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	for _, r := range records {
		if r.Driver != driverBridge || r.Name == network.NetworkBridge {
			continue
		}
		l, err := m.userLAN(r)
		if err == nil {
			err = m.raise(l)
		}
		if err != nil {
			// The daemon serves the others; this one says why when it is used.
			m.o.Log.ErrorContext(ctx, "cannot bring network up", "network", r.Name, "error", err)
			continue
		}
		m.lans[r.ID] = l
	}
	return nil
}

// loadPlain makes the predefined networks that have no interfaces.
func (m *Manager) loadPlain(byName map[string]Record, name, driver string) error {
	r, ok := byName[name]
	if !ok {
		r = newRecord(name, driver)
		if err := m.o.Table.Put(r.ID, r); err != nil {
			return err
		}
	}
	l := newLAN(r, bridgeOptions{})
	l.state = lanReady
	m.lans[r.ID] = l
	return nil
}

func newRecord(name, driver string) Record {
	return Record{network.Network{
		Name: name, ID: ids.New(), Created: time.Now(), Scope: "local", Driver: driver,
		EnableIPv4: true, IPAM: network.IPAM{Driver: "default", Options: map[string]string{}, Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}}
}

// loadDefault makes the network "bridge": its subnet is configured, or the one
// of last time, or the first that is free on this host.
func (m *Manager) loadDefault(byName map[string]Record, all []Record) error {
	r, known := byName[network.NetworkBridge]
	if !known {
		r = newRecord(network.NetworkBridge, driverBridge)
	}
	before := fmt.Sprint(r.IPAM.Config, r.Options)
	cfg, err := m.defaultSubnet(r, all)
	if err != nil {
		return fmt.Errorf("choose a subnet for the default bridge: %w", err)
	}
	r.IPAM.Config = []network.IPAMConfig{cfg}
	o := m.defaultOptions()
	o.bridge, o.icc = m.o.DefaultBridgeName, !m.o.NoICC
	r.Options = map[string]string{
		optDefault: "true", optICC: strconv.FormatBool(o.icc), optMasquerade: "true", optHostBinding: "0.0.0.0",
		optBridgeName: o.bridge, optMTU: strconv.Itoa(o.mtu),
	}
	l := newLAN(r, o)
	if err := l.makePool(); err != nil {
		return err
	}
	if err := m.raise(l); err != nil {
		return err
	}
	if !known || before != fmt.Sprint(r.IPAM.Config, r.Options) {
		if err := m.o.Table.Put(r.ID, r); err != nil {
			return err
		}
	}
	m.lans[r.ID] = l
	return nil
}

func (m *Manager) defaultSubnet(r Record, all []Record) (network.IPAMConfig, error) {
	if p := m.o.BIP; p.IsValid() {
		if !p.Addr().Is4() || p.Addr() == p.Masked().Addr() {
			return network.IPAMConfig{}, errs.Newf(errs.Invalid, "invalid bip %s: give the bridge's own address and a mask", p)
		}
		return network.IPAMConfig{Subnet: p.Masked(), Gateway: p.Addr()}, nil
	}
	used, err := link.Routes(m.o.DefaultBridgeName)
	if err != nil {
		return network.IPAMConfig{}, err
	}
	if len(r.IPAM.Config) == 1 {
		old := r.IPAM.Config[0]
		free := !slices.ContainsFunc(used, old.Subnet.Overlaps)
		if old.Subnet.IsValid() && (free || link.Address(m.o.DefaultBridgeName).Addr() == old.Gateway) {
			return old, nil
		}
	}
	for _, o := range all {
		for _, c := range o.IPAM.Config {
			if o.Name != network.NetworkBridge {
				used = append(used, c.Subnet)
			}
		}
	}
	p, err := ipam.Choose(m.o.Pools, used)
	return network.IPAMConfig{Subnet: p, Gateway: p.Addr().Next()}, err
}

func (m *Manager) defaultOptions() bridgeOptions {
	return bridgeOptions{icc: true, masquerade: true, ifacePrefix: "eth", mtu: m.o.MTU}
}

// userLAN reads a row of a user-defined network.
func (m *Manager) userLAN(r Record) (*lan, error) {
	def := m.defaultOptions()
	def.bridge = "br-" + ids.Short(r.ID)
	o, err := parseOptions(r.Options, def)
	if err != nil {
		return nil, err
	}
	l := newLAN(r, o)
	return l, l.makePool()
}

// makePool makes the network's addresses; the gateway is written to the record
// if it was not given.
func (l *lan) makePool() (err error) {
	if len(l.rec.IPAM.Config) != 1 {
		return errs.Newf(errs.Unsupported, "network %s: one IPv4 subnet is supported, it has %d", l.rec.Name, len(l.rec.IPAM.Config))
	}
	c := &l.rec.IPAM.Config[0]
	l.pool, err = ipam.New(ipam.Config{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress})
	if err != nil {
		return err
	}
	l.subnet = l.pool.Subnet()
	c.Subnet, c.Gateway = l.subnet, l.pool.Gateway()
	return nil
}

// raise makes the bridge on the host and the network ready.
func (m *Manager) raise(l *lan) (err error) {
	l.index, err = link.EnsureBridge(link.Bridge{
		Name: l.opts.bridge, Group: m.group, MTU: l.opts.mtu,
		Addr:      netip.PrefixFrom(l.rec.IPAM.Config[0].Gateway, l.subnet.Bits()),
		Localhost: !l.rec.Internal,
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.state = lanReady
	l.mu.Unlock()
	return nil
}

// all lists the networks that can be found, by name.
func (m *Manager) all() []*lan {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Collect(maps.Values(m.lans))
	out = slices.DeleteFunc(out, func(l *lan) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.state != lanReady
	})
	slices.SortFunc(out, func(a, b *lan) int { return cmp.Compare(a.rec.Name, b.rec.Name) })
	return out
}
