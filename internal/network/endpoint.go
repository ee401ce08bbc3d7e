package network

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// endpoint is one sandbox on one network.
type endpoint struct {
	lan     *lan
	sandbox *Sandbox
	// Fixed once the endpoint is attached:
	settings *network.EndpointSettings
	addr     netip.Prefix // of IPv4; invalid without
	addr6    netip.Prefix
	veth     string // the host's end
	ifname   string // inside

	known []string // guarded by the lan's mu: the names it is known by
}

// hostEnd is its interface of the host, if it has one.
func (e *endpoint) hostEnd() []string {
	if e.veth == "" {
		return nil
	}
	return []string{e.veth}
}

// addrs are those that it has.
func (e *endpoint) addrs() (out []netip.Addr) {
	for _, p := range []netip.Prefix{e.addr, e.addr6} {
		if p.IsValid() {
			out = append(out, p.Addr())
		}
	}
	return out
}

func (e *endpoint) prefix(v6 bool) netip.Prefix {
	if v6 {
		return e.addr6
	}
	return e.addr
}

// gateway is where the endpoint leads to in a family; invalid when nowhere.
func (e *endpoint) gateway(v6 bool) netip.Addr { return e.lan.leads(v6, e.prefix(v6).Addr()) }

// linkLocal are the addresses that were asked for beside those of the network.
func (e *endpoint) linkLocal(v6 bool) (out []netip.Prefix) {
	if e.settings.IPAMConfig == nil {
		return nil
	}
	for _, a := range e.settings.IPAMConfig.LinkLocalIPs {
		if a = a.Unmap(); a.Is6() == v6 {
			out = append(out, netip.PrefixFrom(a, a.BitLen()/2)) // 169.254.0.0/16, fe80::/64
		}
	}
	return out
}

// setup is what its interface gets in a family.
func (e *endpoint) setup(v6 bool) (s link.Setup) {
	if p := e.prefix(v6); p.IsValid() {
		s.Addrs = append(s.Addrs, p)
	}
	s.Addrs = append(s.Addrs, e.linkLocal(v6)...)
	return s
}

// addGateway lets the default route lead there, too.
func (e *endpoint) addGateway(v6 bool, s *link.Setup) {
	if gw := e.gateway(v6); gw.IsValid() {
		s.Gateways = append(s.Gateways, gw)
	}
}

// newEndpoint checks what is declared.
func (m *Manager) newEndpoint(s *Sandbox, spec EndpointSpec) (*endpoint, error) {
	l, err := m.find(spec.Network)
	if err != nil {
		return nil, err
	}
	e := &endpoint{lan: l, sandbox: s, settings: spec.Settings.Copy()}
	if e.settings == nil {
		e.settings = &network.EndpointSettings{}
	}
	switch {
	case l.rec.ConfigOnly:
		return nil, errs.New(errs.Denied, "cannot create endpoint on configuration-only network")
	case !l.attachable():
		return nil, errs.Newf(errs.Invalid, "container cannot be connected to network %s: it has no interfaces", l.rec.Name)
	case l.rec.Driver == driverIPvlan && len(e.settings.MacAddress) > 0:
		return nil, errs.New(errs.Invalid, "ipvlan interfaces do not support custom mac address assignment")
	}
	e.settings.EndpointID = "" // of a life before: not declared
	if err := l.checkAddresses(e.settings.IPAMConfig); err != nil {
		return nil, err
	}
	if len(e.settings.Aliases) > 0 && !l.named() {
		return nil, errs.New(errs.Invalid, "invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks")
	}
	if n := len(e.settings.MacAddress); n != 0 && n != 6 {
		return nil, errs.Newf(errs.Invalid, "invalid MAC address %s", e.settings.MacAddress)
	}
	return e, checkDriverOpts(e.settings.DriverOpts)
}

// checkAddresses checks addresses that are asked for.
func (l *lan) checkAddresses(c *network.EndpointIPAMConfig) error {
	if c == nil {
		return nil
	}
	c.IPv4Address, c.IPv6Address = c.IPv4Address.Unmap(), c.IPv6Address.WithZone("")
	for v6, a := range map[bool]netip.Addr{false: c.IPv4Address, true: c.IPv6Address} {
		switch {
		case !a.IsValid():
		case a.Is6() != v6:
			return errs.Newf(errs.Invalid, "invalid endpoint settings:\n%s is of the wrong family", a)
		case !l.named():
			return errs.New(errs.Invalid, "user specified IP address is supported on user defined networks only")
		case !l.userSubnet(v6):
			return errs.New(errs.Invalid, "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets")
		}
	}
	for _, a := range c.LinkLocalIPs {
		switch {
		case !a.IsValid() || a.IsUnspecified():
			return errs.Newf(errs.Invalid, "invalid endpoint settings:\ninvalid link-local IP address: %s", a)
		case len(l.set(a.Unmap().Is6())) == 0:
			return errs.Newf(errs.Invalid, "invalid endpoint settings:\nlink-local IP address %s: network %s has no addresses of that family", a, l.rec.Name)
		}
	}
	return nil
}

func checkDriverOpts(opts map[string]string) error {
	for k, v := range opts {
		switch k {
		case optEndpointIfname:
			if !ifnameRE.MatchString(v) || v == "lo" {
				return errs.Newf(errs.Invalid, "invalid interface name %q", v)
			}
		case optEndpointSysctls:
			if _, err := endpointSysctls(v, "eth0"); err != nil {
				return err
			}
		default:
			if strings.HasPrefix(k, "com.docker.network.") {
				return errs.Newf(errs.Unsupported, "endpoint option %s is not supported", k)
			}
		}
	}
	return nil
}

// attach takes addresses and plugs the sandbox in, or completes what was made
// ahead. used are the names of interfaces inside.
func (m *Manager) attach(ctx context.Context, e *endpoint, p *prepared, used []string) (err error) {
	l := e.lan
	var want4, want6 netip.Addr
	if c := e.settings.IPAMConfig; c != nil {
		want4, want6 = c.IPv4Address, c.IPv6Address
		for _, want := range []netip.Addr{want4, want6} {
			if want.IsValid() {
				m.wake(ctx, l, want)
			}
		}
	}
	if e.ifname, err = e.chooseIfname(used); err != nil {
		return err
	}
	plugged := p.lan == l
	switch {
	case plugged:
		e.veth = p.veth
	case l.vlan != nil:
		if err := m.readyParent(e); err != nil {
			return err
		}
	default:
		e.veth = newVethName()
	}
	err = l.join(e, want4, want6)
	if errs.Is(err, errs.Unavailable) && m.wakeAny(ctx, l) {
		err = l.join(e, want4, want6)
	}
	if err != nil {
		return addressError(l, err)
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { l.leave(e); l.release(e.addrs()) })
	switch {
	case plugged:
		setup := e.setup(false)
		setup.MAC = net.HardwareAddr(e.settings.MacAddress)
		e.addGateway(false, &setup)
		if err = p.Socket.Configure(p.index, setup); err == nil {
			setup = e.setup(true)
			e.addGateway(true, &setup)
			err = m.configure6(e, p.Space, p.index, setup)
		}
	case l.vlan != nil:
		if err = m.stack(e, p.Space); err == nil {
			undo.Push(func() { _ = p.Socket.Delete(e.ifname) })
		}
	default:
		undo.Push(func() { m.deleteLinks([]string{e.veth}) })
		err = m.plugIn(e, p.Space)
	}
	if err != nil {
		return fmt.Errorf("connect to network %s: %w", l.rec.Name, err)
	}
	if list := e.settings.DriverOpts[optEndpointSysctls]; list != "" {
		set, err := endpointSysctls(list, e.ifname)
		if err == nil {
			err = m.spaces.In(p.File, func() error { return writeSysctls(set) })
		}
		if err != nil {
			return err
		}
	}
	undo.Release()
	return nil
}

// plugIn makes the endpoint's interface.
func (m *Manager) plugIn(e *endpoint, sp *link.Space) error {
	l := e.lan
	err := m.rt.AddVeth(link.Veth{
		Host: e.veth, Group: m.group, Bridge: l.index, Peer: e.ifname,
		MAC: net.HardwareAddr(e.settings.MacAddress), MTU: l.opts.mtu,
		Hairpin: link.CallsFirewall(), Isolated: !l.opts.icc,
	}, sp.File)
	if err != nil {
		return err
	}
	if err := m.configure(e, sp); err != nil {
		return err
	}
	return m.awaitCarrier(l, e.veth)
}

// configure brings the endpoint's interface up with its addresses.
func (m *Manager) configure(e *endpoint, sp *link.Space) error {
	index, err := sp.Socket.Index(e.ifname)
	if err != nil {
		return err
	}
	setup := e.setup(false)
	setup.Up = true
	if err := sp.Socket.Configure(index, setup); err != nil {
		return err
	}
	return m.configure6(e, sp, index, e.setup(true))
}

// configure6 switches IPv6 on at the endpoint's interface, if its network has it,
// and configures it.
func (m *Manager) configure6(e *endpoint, sp *link.Space, index int, setup link.Setup) error {
	if !e.addr6.IsValid() {
		return nil
	}
	err := m.spaces.In(sp.File, func() error { return link.WriteSysctl("net/ipv6/conf/"+e.ifname+"/disable_ipv6", "0") })
	if err != nil {
		return err
	}
	return sp.Socket.Configure(index, setup)
}

// awaitCarrier waits until the network forwards what comes by the interface.
func (m *Manager) awaitCarrier(l *lan, veth string) error {
	for _, name := range []string{veth, l.opts.bridge} { // the bridge's first port gives it its own
		if err := m.rt.AwaitCarrier(name); err != nil {
			return err
		}
	}
	return nil
}

// addressError adds to an error of the pool what docker's clients see.
func addressError(l *lan, err error) error {
	switch errs.KindOf(err) {
	case errs.Unavailable:
		return fmt.Errorf("%w: %s (%s)", err, l.rec.Name, l.rec.ID)
	case errs.Invalid:
		return fmt.Errorf("invalid endpoint settings:\n%w", err)
	}
	return err
}

// fill computes the operational settings, once the addresses are known. The lan's
// mu is held: from then on others see the endpoint.
func (e *endpoint) fill() {
	s := e.settings
	s.NetworkID, s.EndpointID = e.lan.rec.ID, ids.New()
	if e.addr.IsValid() {
		s.Gateway, s.IPAddress, s.IPPrefixLen = shown(e.gateway(false)), e.addr.Addr(), e.addr.Bits()
	}
	if e.addr6.IsValid() {
		s.IPv6Gateway, s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = shown(e.gateway(true)), e.addr6.Addr(), e.addr6.Bits()
	}
	if len(s.MacAddress) == 0 {
		switch as := e.addrs(); {
		case e.lan.rec.Driver == driverBridge && len(as) > 0:
			s.MacAddress = macOf(as[0])
		case e.lan.rec.Driver == driverMacvlan && len(as) > 0:
			s.MacAddress = macOn(e.lan.rec.ID, as[0].String())
		case e.lan.rec.Driver == driverMacvlan:
			s.MacAddress = macOn(e.lan.rec.ID, s.EndpointID) // any that nobody has
		}
	}
	if e.lan.named() {
		s.DNSNames = e.sandbox.dnsNames(s.Aliases)
	}
}

// shown is a gateway as clients see it: none where there is only a way out.
func shown(gw netip.Addr) netip.Addr {
	if gw.IsUnspecified() {
		return netip.Addr{}
	}
	return gw
}

// macOf derives a hardware address: as long as a container has its address,
// what its neighbours remember stays true.
func macOf(a netip.Addr) network.HardwareAddr {
	b := a.AsSlice()
	if a.Is6() {
		h := fnv.New32a()
		_, _ = h.Write(b)
		b = h.Sum(nil)
	}
	return network.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}

// chooseIfname names the interface inside: the first free of eth0, eth1…
func (e *endpoint) chooseIfname(used []string) (string, error) {
	if name := e.settings.DriverOpts[optEndpointIfname]; name != "" {
		if slices.Contains(used, name) {
			return "", errs.Newf(errs.Conflict, "error renaming interface to %s in the container: file exists", name)
		}
		return name, nil
	}
	for i := 0; ; i++ {
		name := e.lan.opts.ifacePrefix + strconv.Itoa(i)
		if !slices.Contains(used, name) {
			return name, nil
		}
	}
}

// announce makes the endpoint known to its neighbours and to listeners.
func (m *Manager) announce(e *endpoint) {
	if e.lan.named() {
		e.lan.setNames(e, e.settings.DNSNames)
	}
	m.publish(events.ActionConnect, e.lan, map[string]string{"container": e.sandbox.spec.ID})
}

// detach forgets the endpoint. With its namespace gone the kernel removes the
// interface; its addresses rest until then.
func (m *Manager) detach(e *endpoint) {
	if e.ifname != "" {
		m.rest(e)
	}
	e.lan.leave(e)
	m.publish(events.ActionDisconnect, e.lan, map[string]string{"container": e.sandbox.spec.ID})
}
