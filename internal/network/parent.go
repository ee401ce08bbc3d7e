package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"

	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// raiseVLAN makes sure of the parent of a macvlan or ipvlan network.
func (m *Manager) raiseVLAN(l *lan) error {
	if len(l.v6) > 0 && !link.HasIPv6() {
		return errs.New(errs.Unsupported, "this host has no IPv6")
	}
	_, err := m.parent(l.vlan)
	return err
}

// parent finds the parent's index. One that is missing is made if its name says
// how: it is then of our group, which is how it is known as ours later.
func (m *Manager) parent(o *vlanOptions) (int, error) {
	m.parents.Lock()
	defer m.parents.Unlock()
	index, err := m.rt.Index(o.parent)
	if !errors.Is(err, unix.ENODEV) {
		return index, err
	}
	if o.alone {
		err = m.rt.AddDummy(o.parent, m.group)
	} else {
		err = m.addTagged(o.parent)
	}
	if err != nil {
		return 0, err
	}
	return m.rt.Index(o.parent)
}

func (m *Manager) addTagged(name string) error {
	on, id, err := parseTag(name)
	if err != nil {
		return err
	}
	index, err := m.rt.Index(on)
	if errors.Is(err, unix.ENODEV) {
		return errs.Newf(errs.Invalid, "-o parent interface was not found on the host: %s", on)
	}
	if err != nil {
		return err
	}
	return m.rt.AddVLAN(name, index, id, m.group)
}

// dropParent deletes the parent if we made it and no other network is on it.
func (m *Manager) dropParent(l *lan) error {
	m.parents.Lock()
	defer m.parents.Unlock()
	m.mu.Lock()
	used := false
	for _, other := range m.lans {
		if other == l || other.iface() != l.iface() {
			continue
		}
		other.mu.Lock()
		used = used || other.state != lanRemoved
		other.mu.Unlock()
	}
	m.mu.Unlock()
	if used {
		return nil
	}
	return link.DeleteOwned(l.vlan.parent, m.group)
}

// readyParent makes sure of the parent once more, which may have come or gone
// since. The only endpoint of a parent takes its hardware address over.
func (m *Manager) readyParent(e *endpoint) error {
	o := e.lan.vlan
	if _, err := m.parent(o); err != nil {
		return fmt.Errorf("connect to network %s: its parent interface %s is missing: %w", e.lan.rec.Name, o.parent, err)
	}
	if !o.passthru() || len(e.settings.MacAddress) > 0 {
		return nil
	}
	mac, err := link.HardwareAddr(o.parent)
	e.settings.MacAddress = network.HardwareAddr(mac)
	return err
}

// macOn derives a macvlan endpoint's hardware address from the network and its
// own address: what neighbours remember stays true when a container starts again,
// and hosts whose networks have the same subnets have others.
func macOn(networkID, what string) network.HardwareAddr {
	sum := sha256.Sum256([]byte(networkID + " " + what))
	mac := network.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2 // of one station, given by us
	return mac
}

// stack makes the endpoint's interface on top of the parent.
func (m *Manager) stack(e *endpoint, sp *link.Space) error {
	o := e.lan.vlan
	parent, err := m.parent(o)
	if err != nil {
		return err
	}
	u := link.Upper{Kind: o.kind, Mode: o.mode, Flags: o.flags, Parent: parent, Name: e.ifname, MTU: o.mtu}
	if !o.passthru() {
		u.MAC = net.HardwareAddr(e.settings.MacAddress)
	}
	if err := m.rt.AddUpper(u, sp.File); err != nil {
		return err
	}
	if err = m.passAddress(e, sp); err == nil {
		err = m.configure(e, sp)
	}
	if err != nil {
		return errors.Join(err, sp.Socket.Delete(e.ifname))
	}
	return nil
}

// passAddress gives an interface in mode passthru, and with it the parent, the
// hardware address that was asked for; the kernel gives the parent its own back.
func (m *Manager) passAddress(e *endpoint, sp *link.Space) error {
	if !e.lan.vlan.passthru() {
		return nil
	}
	have, err := link.HardwareAddr(e.lan.vlan.parent)
	if err != nil || have.String() == e.settings.MacAddress.String() {
		return err
	}
	index, err := sp.Socket.Index(e.ifname)
	if err != nil {
		return err
	}
	return sp.Socket.Configure(index, link.Setup{MAC: net.HardwareAddr(e.settings.MacAddress)})
}

// unstack deletes the endpoint's interface, which is in the namespace alone, and
// frees its addresses: ipvlan lets nobody have one that an interface still has.
func (m *Manager) unstack(e *endpoint) {
	rt, err := e.sandbox.socket()
	if err == nil {
		err = rt.Delete(e.ifname)
		rt.Close()
	}
	if err != nil {
		m.o.Log.ErrorContext(context.Background(), "cannot delete interface", "container", e.sandbox.spec.ID, "network", e.lan.rec.Name, "error", err)
	}
	e.lan.release(e.addrs())
}
