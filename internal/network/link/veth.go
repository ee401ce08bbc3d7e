package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Veth describes a pair between a bridge and a namespace.
type Veth struct {
	Host   string // name of the host's end
	Group  uint32 // of the host's end: whose it is
	Bridge int    // index
	Peer   string // name in the namespace
	MAC    net.HardwareAddr
	MTU    int

	// Hairpin lets frames leave by the port that they came by: where bridges call
	// the firewall, a container reaches its own published port that way.
	Hairpin bool
	// Isolated keeps the port from exchanging frames with other such ports.
	Isolated bool
}

func ifinfo(index int, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], flags) // the mask of what changes
	return b
}

func setUp(index int) *message {
	return newMessage(unix.RTM_NEWLINK, 0, ifinfo(index, unix.IFF_UP))
}

const (
	vethInfoPeer    = 1 // VETH_INFO_PEER of linux/veth.h
	addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h
	operUp          = 6 // IF_OPER_UP
	brportMode      = 4 // IFLA_BRPORT_MODE: hairpin
	brportIsolated  = 33
)

// AddVeth makes the pair with its peer born in ns and the host's end up on its
// bridge. (A peer that is moved and renamed instead waits 20 ms for the kernel.)
func (s *Socket) AddVeth(v Veth, ns *os.File) error {
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0))
	m.str(unix.IFLA_IFNAME, v.Host)
	m.u32(unix.IFLA_MTU, uint32(v.MTU))
	m.u32(unix.IFLA_GROUP, v.Group)
	m.u32(unix.IFLA_MASTER, uint32(v.Bridge))
	oneQueue(m)
	m.nest(unix.IFLA_LINKINFO, nil, func() {
		m.str(unix.IFLA_INFO_KIND, "veth")
		m.nest(unix.IFLA_INFO_DATA, nil, func() {
			m.nest(vethInfoPeer, ifinfo(0, 0), func() {
				m.str(unix.IFLA_IFNAME, v.Peer)
				m.u32(unix.IFLA_MTU, uint32(v.MTU))
				if len(v.MAC) > 0 {
					m.attr(unix.IFLA_ADDRESS, v.MAC)
				}
				oneQueue(m)
				m.u32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
			})
		})
	})
	err := s.do(nil, m, v.up(true))
	if errors.Is(err, unix.EAFNOSUPPORT) { // a host without IPv6
		err = s.do(nil, v.up(false))
	}
	if err != nil {
		return fmt.Errorf("make interface %s: %w", v.Host, err)
	}
	return nil
}

// oneQueue asks for one queue instead of one a processor: each costs directories
// in sysfs and a third of the time that a pair takes, and packets are spread over
// processors without them.
func oneQueue(m *message) {
	m.u32(unix.IFLA_NUM_TX_QUEUES, 1)
	m.u32(unix.IFLA_NUM_RX_QUEUES, 1)
}

// up brings the host's end up. It speaks no IPv6: a port of a bridge needs no
// address.
func (v Veth) up(noIPv6 bool) *message {
	m := newMessage(unix.RTM_NEWLINK, 0, ifinfo(0, unix.IFF_UP))
	m.str(unix.IFLA_IFNAME, v.Host)
	if v.Hairpin || v.Isolated {
		m.nest(unix.IFLA_LINKINFO, nil, func() {
			m.str(unix.IFLA_INFO_SLAVE_KIND, "bridge")
			m.nest(unix.IFLA_INFO_SLAVE_DATA, nil, func() {
				m.attr(brportMode, flag(v.Hairpin))
				m.attr(brportIsolated, flag(v.Isolated))
			})
		})
	}
	if noIPv6 {
		m.nest(unix.IFLA_AF_SPEC, nil, func() {
			m.nest(unix.AF_INET6, nil, func() {
				m.attr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenModeNone})
			})
		})
	}
	return m
}

func flag(on bool) []byte {
	if on {
		return []byte{1}
	}
	return []byte{0}
}

// Index finds an interface by name; an error wrapping ENODEV if there is none.
func (s *Socket) Index(name string) (int, error) {
	index, _, err := s.get(name)
	return index, err
}

func (s *Socket) get(name string) (index int, operstate byte, err error) {
	m := newMessage(unix.RTM_GETLINK, 0, ifinfo(0, 0))
	m.str(unix.IFLA_IFNAME, name)
	err = s.do(func(body []byte) {
		if len(body) >= unix.SizeofIfInfomsg {
			index = int(binary.NativeEndian.Uint32(body[4:]))
			if state := attribute(body[unix.SizeofIfInfomsg:], unix.IFLA_OPERSTATE); len(state) == 1 {
				operstate = state[0]
			}
		}
	}, m)
	if err == nil && index == 0 {
		err = unix.ENODEV
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find interface %s: %w", name, err)
	}
	return index, operstate, nil
}

// carrierTimeout is far longer than any kernel takes.
const carrierTimeout = 250 * time.Millisecond

// AwaitCarrier waits until the bridge forwards what comes by the interface. The
// kernel tells the bridge of a new carrier by a deferred work; a container that
// sends before that loses its first packet, and then waits a second for a
// retry. Asking for the interface makes kernels from 6.8 on do that work at once;
// with others it takes some milliseconds.
func (s *Socket) AwaitCarrier(name string) error {
	for deadline := time.Now().Add(carrierTimeout); ; time.Sleep(300 * time.Microsecond) {
		_, state, err := s.get(name)
		if err != nil || state == operUp || time.Now().After(deadline) {
			return err // without a carrier in time: it still may come
		}
	}
}

// Setup is what an interface inside a namespace gets; zero fields are left out.
// Addresses of IPv6 need it switched on there.
type Setup struct {
	Up       bool
	MAC      net.HardwareAddr
	Addrs    []netip.Prefix
	Gateways []netip.Addr // of default routes; an unspecified one: what lies beyond is on the link
}

// Configure sets an interface up in one exchange.
func (s *Socket) Configure(index int, c Setup) error {
	var msgs []*message
	if len(c.MAC) > 0 {
		m := newMessage(unix.RTM_NEWLINK, 0, ifinfo(index, 0))
		m.attr(unix.IFLA_ADDRESS, c.MAC)
		msgs = append(msgs, m)
	}
	if c.Up {
		msgs = append(msgs, setUp(index))
	}
	for _, a := range c.Addrs {
		msgs = append(msgs, addAddress(index, a))
	}
	for _, g := range c.Gateways {
		msgs = append(msgs, route(index, g))
	}
	if len(msgs) == 0 {
		return nil
	}
	if err := s.do(nil, msgs...); err != nil {
		return fmt.Errorf("configure interface %d with %s: %w", index, c.Addrs, err)
	}
	return nil
}

func family(a netip.Addr) byte {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func addAddress(index int, addr netip.Prefix) *message {
	fixed := make([]byte, unix.SizeofIfAddrmsg)
	fixed[0], fixed[1] = family(addr.Addr()), byte(addr.Bits())
	if addr.Addr().Is6() {
		fixed[2] = unix.IFA_F_NODAD // it is ours to give: a container uses it at once
	}
	binary.NativeEndian.PutUint32(fixed[4:], uint32(index))
	m := newMessage(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, fixed)
	m.attr(unix.IFA_LOCAL, addr.Addr().AsSlice())
	m.attr(unix.IFA_ADDRESS, addr.Addr().AsSlice())
	if addr.Addr().Is6() {
		return m
	}
	b := addr.Addr().As4()
	for i := addr.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	m.attr(unix.IFA_BROADCAST, b[:])
	return m
}

// route makes the default route of the gateway's family.
func route(index int, gateway netip.Addr) *message {
	fixed := make([]byte, unix.SizeofRtMsg)
	fixed[0] = family(gateway)
	fixed[4], fixed[5] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT
	fixed[6], fixed[7] = unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	if gateway.IsUnspecified() {
		fixed[6] = unix.RT_SCOPE_LINK
	}
	m := newMessage(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, fixed)
	if !gateway.IsUnspecified() {
		m.attr(unix.RTA_GATEWAY, gateway.AsSlice())
	}
	m.u32(unix.RTA_OIF, uint32(index))
	return m
}

// SetDefaultRoute makes the interface the one to everywhere of the gateway's
// family, whatever was.
func (s *Socket) SetDefaultRoute(index int, gateway netip.Addr) error {
	if err := s.do(nil, route(index, gateway)); err != nil {
		return fmt.Errorf("set default route by %s: %w", gateway, err)
	}
	return nil
}

// DeleteDefaultRoute removes that of IPv4, or of IPv6; none is no error.
func (s *Socket) DeleteDefaultRoute(v6 bool) error {
	fixed := make([]byte, unix.SizeofRtMsg)
	fixed[0], fixed[4] = unix.AF_INET, unix.RT_TABLE_MAIN
	if v6 {
		fixed[0] = unix.AF_INET6
	}
	err := s.do(nil, newMessage(unix.RTM_DELROUTE, 0, fixed))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete default route: %w", err)
	}
	return nil
}

// Delete deletes an interface by name; none is no error. It waits long: never on
// a container's path to its start or end.
func (s *Socket) Delete(name string) error {
	m := newMessage(unix.RTM_DELLINK, 0, ifinfo(0, 0))
	m.str(unix.IFLA_IFNAME, name)
	if err := s.do(nil, m); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}
