package network

import (
	"context"
	"fmt"
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
	addr     netip.Prefix // invalid without a bridge
	veth     string       // the host's end
	ifname   string       // inside

	known []string // guarded by the lan's mu: the names it is known by
}

// gateway is where the endpoint leads to; invalid when nowhere.
func (e *endpoint) gateway() netip.Addr { return e.lan.gateway() }

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
	if l.rec.Driver != driverBridge {
		return nil, errs.Newf(errs.Invalid, "container cannot be connected to network %s: it is not a bridge", l.rec.Name)
	}
	e.settings.EndpointID = "" // of a life before: not declared
	c := e.settings.IPAMConfig
	if c != nil && (c.IPv6Address.IsValid() || len(c.LinkLocalIPs) > 0) {
		return nil, errs.New(errs.Unsupported, "invalid endpoint settings:\nIPv6 and link-local addresses are not supported yet")
	}
	if c != nil && c.IPv4Address.IsValid() && !l.userSubnet() {
		if !l.named() {
			return nil, errs.New(errs.Invalid, "user specified IP address is supported on user defined networks only")
		}
		return nil, errs.New(errs.Invalid, "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets")
	}
	if len(e.settings.Aliases) > 0 && !l.named() {
		return nil, errs.New(errs.Invalid, "invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks")
	}
	if n := len(e.settings.MacAddress); n != 0 && n != 6 {
		return nil, errs.Newf(errs.Invalid, "invalid MAC address %s", e.settings.MacAddress)
	}
	return e, checkDriverOpts(e.settings.DriverOpts)
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

// attach takes an address and plugs the sandbox in, or completes what was made
// ahead. used are the names of interfaces inside.
func (m *Manager) attach(ctx context.Context, e *endpoint, p *prepared, used []string) (err error) {
	l := e.lan
	var want netip.Addr
	if c := e.settings.IPAMConfig; c != nil && c.IPv4Address.IsValid() {
		want = c.IPv4Address
		m.wake(ctx, l, want)
	}
	if e.ifname, err = e.chooseIfname(used); err != nil {
		return err
	}
	plugged := p.lan == l
	if plugged {
		e.veth = p.veth
	} else {
		e.veth = newVethName()
	}
	err = l.join(e, want)
	if !want.IsValid() && errs.Is(err, errs.Unavailable) && m.wakeAny(ctx, l) {
		err = l.join(e, want)
	}
	if err != nil {
		return addressError(l, err)
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { l.leave(e); l.release(e.addr.Addr()) })
	if plugged {
		setup := link.Setup{MAC: net.HardwareAddr(e.settings.MacAddress), Addr: e.addr, Gateway: e.gateway()}
		err = p.Socket.Configure(p.index, setup)
	} else {
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
	index, err := sp.Socket.Index(e.ifname)
	if err != nil {
		return err
	}
	if err := sp.Socket.Configure(index, link.Setup{Up: true, Addr: e.addr}); err != nil {
		return err
	}
	return m.awaitCarrier(l, e.veth)
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

// fill computes the operational settings, once the address is known. The lan's
// mu is held: from then on others see the endpoint.
func (e *endpoint) fill() {
	s := e.settings
	s.NetworkID, s.EndpointID = e.lan.rec.ID, ids.New()
	s.Gateway, s.IPAddress, s.IPPrefixLen = e.gateway(), e.addr.Addr(), e.addr.Bits()
	if len(s.MacAddress) == 0 {
		a := e.addr.Addr().As4()
		s.MacAddress = network.HardwareAddr{0x02, 0x42, a[0], a[1], a[2], a[3]}
	}
	if e.lan.named() {
		s.DNSNames = e.sandbox.dnsNames(s.Aliases)
	}
}

// chooseIfname names the interface inside: the first free of eth0, eth1…
func (e *endpoint) chooseIfname(used []string) (string, error) {
	if name := e.settings.DriverOpts[optEndpointIfname]; name != "" {
		if slices.Contains(used, name) {
			return "", errs.Newf(errs.Conflict, "interface name %s is in use in the container", name)
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
// interface; its address rests until then.
func (m *Manager) detach(e *endpoint) {
	if e.veth != "" {
		m.rest(e.veth, e.lan, e.addr.Addr())
	}
	e.lan.leave(e)
	m.publish(events.ActionDisconnect, e.lan, map[string]string{"container": e.sandbox.spec.ID})
}
