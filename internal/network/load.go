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
		if predefined(r.Name) {
			continue
		}
		l, err := m.userLAN(r)
		if err == nil {
			err = m.raise(l)
		}
		if err != nil {
			// The daemon serves the others; this one says why when it is used.
			m.o.Log.ErrorContext(ctx, "cannot bring network up", "network", r.Name, "error", err)
		}
		if l == nil || err != nil && l.vlan == nil {
			continue
		}
		l.state = lanReady // a parent may come late: every endpoint asks for it again
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
	m.ula = ipam.ULA(r.ID) // which lasts as long as the database
	if m.o.NoDefault {
		if known {
			return nil
		}
		return m.o.Table.Put(r.ID, r)
	}
	r.EnableIPv6 = m.o.IPv6
	old := r.IPAM.Config
	r.IPAM.Config = nil
	for _, v6 := range []bool{false, true} {
		if v6 && !r.EnableIPv6 {
			break
		}
		cfg, err := m.defaultSubnet(v6, old, all)
		if err != nil {
			return fmt.Errorf("choose a subnet for the default bridge: %w", err)
		}
		r.IPAM.Config = append(r.IPAM.Config, cfg)
	}
	o := m.defaultOptions()
	o.bridge, o.icc, o.masquerade = m.o.DefaultBridgeName, !m.o.NoICC, !m.o.NoMasquerade
	r.Options = map[string]string{
		optDefault: "true", optICC: strconv.FormatBool(o.icc), optMasquerade: strconv.FormatBool(o.masquerade), optHostBinding: "0.0.0.0",
		optBridgeName: o.bridge, optMTU: strconv.Itoa(o.mtu),
	}
	l := newLAN(r, o)
	if err := l.makePools(); err != nil {
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

// defaultSubnet is the default bridge's in one family, with the other router that
// its containers may have.
func (m *Manager) defaultSubnet(v6 bool, old []network.IPAMConfig, all []Record) (c network.IPAMConfig, err error) {
	bip, fixed, gateway, aux := m.o.BIP, m.o.FixedCIDR, m.o.DefaultGateway, auxGateway
	if v6 {
		bip, fixed, gateway, aux = m.o.BIP6, m.o.FixedCIDR6, m.o.DefaultGateway6, auxGateway6
	}
	switch {
	case bip.IsValid():
		if bip.Addr().Is6() != v6 || bip.Addr() == bip.Masked().Addr() {
			return c, errs.Newf(errs.Invalid, "invalid bip %s: give the bridge's own address and a mask", bip)
		}
		c = network.IPAMConfig{Subnet: bip.Masked(), Gateway: bip.Addr()}
		if fixed.IsValid() && fixed.Masked() != c.Subnet {
			c.IPRange = fixed.Masked()
		}
	case fixed.IsValid():
		c = network.IPAMConfig{Subnet: fixed.Masked()}
	default:
		if c, err = m.freeSubnet(v6, old, all); err != nil {
			return c, err
		}
	}
	c.AuxAddress = nil // of last time
	if gateway.IsValid() {
		c.AuxAddress = map[string]netip.Addr{aux: gateway}
	}
	return c, nil
}

// freeSubnet is the one of last time, or the first that is free on this host.
func (m *Manager) freeSubnet(v6 bool, old []network.IPAMConfig, all []Record) (network.IPAMConfig, error) {
	routes, own := link.Routes, link.Address
	if v6 {
		routes, own = link.Routes6, link.Address6
	}
	used, err := routes(m.o.DefaultBridgeName)
	if err != nil {
		return network.IPAMConfig{}, err
	}
	for _, c := range old {
		if !c.Subnet.IsValid() || c.Subnet.Addr().Is6() != v6 {
			continue
		}
		c.IPRange = netip.Prefix{} // of a configuration that had one
		free := !slices.ContainsFunc(used, c.Subnet.Overlaps)
		if free || own(m.o.DefaultBridgeName).Addr() == c.Gateway {
			return c, nil
		}
	}
	for _, o := range all {
		for _, c := range o.IPAM.Config {
			if o.Name != network.NetworkBridge {
				used = append(used, c.Subnet)
			}
		}
	}
	p, err := ipam.Choose(m.pools(v6), v6, used)
	return network.IPAMConfig{Subnet: p, Gateway: p.Addr().Next()}, err
}

// pools are what subnets that nobody asked for are cut from.
func (m *Manager) pools(v6 bool) []Pool {
	if v6 && !slices.ContainsFunc(m.o.Pools, func(p Pool) bool { return p.Base.Addr().Is6() }) {
		return []Pool{m.ula}
	}
	return m.o.Pools
}

func (m *Manager) defaultOptions() bridgeOptions {
	return bridgeOptions{icc: true, masquerade: true, ifacePrefix: "eth", mtu: m.o.MTU}
}

// userLAN reads a row of a user-defined network; nil with every error.
func (m *Manager) userLAN(r Record) (l *lan, err error) {
	switch {
	case r.ConfigOnly:
		return newLAN(r, bridgeOptions{}), nil
	case r.Driver == driverMacvlan || r.Driver == driverIPvlan:
		l, err = vlanLAN(r)
	default:
		l, err = m.bridgeLAN(r)
	}
	if err == nil {
		err = l.makePools()
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (m *Manager) bridgeLAN(r Record) (*lan, error) {
	def := m.defaultOptions()
	def.bridge = "br-" + ids.Short(r.ID)
	o, err := parseOptions(r.Options, def)
	if err != nil {
		return nil, err
	}
	if !r.Internal && (o.v4 == modeIsolated || o.v6 == modeIsolated) {
		return nil, errs.New(errs.Invalid, "gateway mode 'isolated' can only be used for an internal network")
	}
	return newLAN(r, o), nil
}

// makePools makes the network's addresses; gateways are written to the record if
// they were not given.
func (l *lan) makePools() error {
	for i := range l.rec.IPAM.Config {
		c := &l.rec.IPAM.Config[i]
		v6 := c.Subnet.Addr().Is6()
		if v6 && !l.rec.EnableIPv6 || !v6 && !l.rec.EnableIPv4 {
			continue // declared, and without use
		}
		p, err := ipam.New(ipam.Config{
			Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway, Aux: c.AuxAddress,
			Without: l.opts.mode(v6) == modeIsolated || l.vlan != nil, // whose gateway is another host, if there is one
		})
		if err != nil {
			return err
		}
		c.Subnet, c.Gateway = p.Subnet(), p.Gateway()
		if v6 {
			l.v6 = append(l.v6, p)
		} else {
			l.v4 = append(l.v4, p)
		}
	}
	return nil
}

// raise makes what the network needs on the host, and the network ready.
func (m *Manager) raise(l *lan) (err error) {
	switch {
	case l.rec.ConfigOnly:
	case l.vlan != nil:
		err = m.raiseVLAN(l)
	default:
		err = m.raiseBridge(l)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.state = lanReady
	l.mu.Unlock()
	return nil
}

// lower removes what raise made.
func (m *Manager) lower(l *lan) error {
	switch {
	case l.rec.ConfigOnly:
		return nil
	case l.vlan != nil:
		return m.dropParent(l)
	}
	return link.DeleteOwned(l.opts.bridge, m.group)
}

func (m *Manager) raiseBridge(l *lan) (err error) {
	if len(l.v6) > 0 {
		if err := m.needIPv6(); err != nil {
			return err
		}
	}
	address := func(v6 bool) (p netip.Prefix) {
		if a := l.own(v6); a.IsValid() && l.opts.mode(v6) != modeIsolated {
			p = netip.PrefixFrom(a, l.set(v6)[0].Subnet().Bits())
		}
		return p
	}
	l.index, err = link.EnsureBridge(link.Bridge{
		Name: l.opts.bridge, Group: m.group, MTU: l.opts.mtu,
		Addr: address(false), Addr6: address(true), KeepAddr: l.opts.keepAddr, IPv6: len(l.v6) > 0,
		Localhost: !l.rec.Internal && len(l.v4) > 0,
	})
	return err
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
