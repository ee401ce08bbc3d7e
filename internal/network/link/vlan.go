package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Kinds of interfaces that lie on top of another, the parent.
const (
	Macvlan = "macvlan"
	IPvlan  = "ipvlan"
)

// Modes of macvlan: MACVLAN_MODE_* of linux/if_link.h.
const (
	MacvlanPrivate  = 1
	MacvlanVEPA     = 2
	MacvlanBridge   = 4
	MacvlanPassthru = 8
)

// Modes and flags of ipvlan: IPVLAN_MODE_*, IPVLAN_F_*.
const (
	IPvlanL2  = 0
	IPvlanL3  = 1
	IPvlanL3S = 2

	IPvlanPrivate = 1
	IPvlanVEPA    = 2
)

const (
	macvlanMode = 1 // IFLA_MACVLAN_MODE
	ipvlanMode  = 1 // IFLA_IPVLAN_MODE
	ipvlanFlags = 2 // IFLA_IPVLAN_FLAGS
	vlanID      = 1 // IFLA_VLAN_ID
)

// Upper describes an interface in a namespace on top of one of the host's.
type Upper struct {
	Kind   string
	Mode   uint16
	Flags  uint16 // of ipvlan
	Parent int    // index
	Name   string // in the namespace
	MAC    net.HardwareAddr
	MTU    int // 0: the parent's
}

// AddUpper makes the interface, born in ns: the host never sees it, and it dies
// with the namespace or the parent.
func (s *Socket) AddUpper(u Upper, ns *os.File) error {
	m := newLink(u.Name, u.Kind, 0, func(m *message) {
		if u.Kind == IPvlan {
			m.u16(ipvlanMode, u.Mode)
			m.u16(ipvlanFlags, u.Flags)
		} else {
			m.u32(macvlanMode, uint32(u.Mode))
		}
	})
	m.u32(unix.IFLA_LINK, uint32(u.Parent))
	m.u32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
	if u.MTU != 0 {
		m.u32(unix.IFLA_MTU, uint32(u.MTU))
	}
	if len(u.MAC) > 0 {
		m.attr(unix.IFLA_ADDRESS, u.MAC)
	}
	err := s.do(nil, m)
	if errors.Is(err, unix.EBUSY) {
		err = errs.Newf(errs.Conflict, "%w: the parent is in use by another kind or mode", err)
	}
	return madeError(u.Kind, u.Name, err)
}

// AddDummy makes an interface of the host that leads nowhere.
func (s *Socket) AddDummy(name string, group uint32) error {
	m := newLink(name, "dummy", unix.IFF_UP, nil)
	m.u32(unix.IFLA_GROUP, group)
	return madeError("dummy", name, s.do(nil, m))
}

// AddVLAN makes an interface of the host for one VLAN of another.
func (s *Socket) AddVLAN(name string, parent int, id uint16, group uint32) error {
	m := newLink(name, "vlan", unix.IFF_UP, func(m *message) { m.u16(vlanID, id) })
	m.u32(unix.IFLA_LINK, uint32(parent))
	m.u32(unix.IFLA_GROUP, group)
	return madeError("vlan", name, s.do(nil, m))
}

// Supports asks whether the kernel knows a kind of interface that needs a parent,
// which loads its module: without one it is refused in any case, but for another
// reason.
func (s *Socket) Supports(kind string) error {
	if err := s.do(nil, newLink("skiff-probe", kind, 0, nil)); errors.Is(err, unix.EOPNOTSUPP) {
		return madeError(kind, "", err)
	}
	return nil
}

// newLink asks for an interface; flags and data may be zero.
func newLink(name, kind string, flags uint32, data func(*message)) *message {
	m := newMessage(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, flags))
	m.str(unix.IFLA_IFNAME, name)
	m.nest(unix.IFLA_LINKINFO, nil, func() {
		m.str(unix.IFLA_INFO_KIND, kind)
		if data != nil {
			m.nest(unix.IFLA_INFO_DATA, nil, func() { data(m) })
		}
	})
	return m
}

func (m *message) u16(typ uint16, v uint16) {
	m.attr(typ, binary.NativeEndian.AppendUint16(nil, v))
}

func madeError(kind, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return errs.Newf(errs.Unsupported, "the kernel of this host has no %s interfaces (module %s): %w", kind, moduleOf(kind), err)
	}
	return fmt.Errorf("make %s interface %s: %w", kind, name, err)
}

func moduleOf(kind string) string {
	if kind == "vlan" {
		return "8021q"
	}
	return kind
}

// HardwareAddr is that of the named interface of the host.
func HardwareAddr(name string) (net.HardwareAddr, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	return l.Attrs().HardwareAddr, nil
}
