package link

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Bridge describes a bridge of the host.
type Bridge struct {
	Name      string
	Group     uint32 // whose it is
	MTU       int
	Addr      netip.Prefix // the gateway's address, with the subnet's length; zero: none
	Addr6     netip.Prefix // the same of IPv6
	KeepAddr  bool         // leave its IPv4 addresses alone: they are somebody else's
	IPv6      bool         // it routes IPv6
	Localhost bool         // route 127.0.0.0/8: ports published on it must answer
}

// EnsureBridge makes the bridge, or brings one that exists into shape, and
// returns its index.
func EnsureBridge(b Bridge) (int, error) {
	l, err := netlink.LinkByName(b.Name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		if l, err = makeBridge(b); err != nil {
			return 0, fmt.Errorf("make bridge %s: %w", b.Name, err)
		}
	case err != nil:
		return 0, fmt.Errorf("find bridge %s: %w", b.Name, err)
	case l.Type() != "bridge":
		return 0, errs.Newf(errs.Denied, "interface %s exists and is not a bridge", b.Name)
	}
	index := l.Attrs().Index
	if err := bridgeSysctls(b); err != nil { // first: without IPv6 it takes no address
		return 0, err
	}
	if !b.KeepAddr {
		if err := setAddress(l, b.Group, netlink.FAMILY_V4, b.Addr); err != nil {
			return 0, fmt.Errorf("give bridge %s the address %s: %w", b.Name, b.Addr, err)
		}
	}
	if b.IPv6 {
		if err := setAddress(l, b.Group, netlink.FAMILY_V6, b.Addr6); err != nil {
			return 0, fmt.Errorf("give bridge %s the address %s: %w", b.Name, b.Addr6, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return 0, fmt.Errorf("bring bridge %s up: %w", b.Name, err)
	}
	return index, nil
}

// setAddress gives the bridge its address; one of ours has no other, but those
// that the kernel made for the link.
func setAddress(l netlink.Link, group uint32, family int, addr netip.Prefix) error {
	addrs, err := addresses(l, family)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		have := toPrefix(a.IPNet)
		if have == addr {
			return nil
		}
		if l.Attrs().Group != group || have.Addr().Is6() && have.Addr().IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(l, &a); err != nil {
			return err
		}
	}
	if !addr.IsValid() {
		return nil
	}
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen()),
	}}
	if family == netlink.FAMILY_V6 {
		a.Flags = unix.IFA_F_NODAD // nobody else has it, and containers use it at once
	}
	return netlink.AddrReplace(l, a)
}

func makeBridge(b Bridge) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.MTU = b.Name, b.Group, b.MTU
	// An address of its own: otherwise the bridge takes on its ports' and changes
	// it as they come and go.
	attrs.HardwareAddr = make(net.HardwareAddr, 6)
	_, _ = rand.Read(attrs.HardwareAddr) // never fails: see crypto/rand
	attrs.HardwareAddr[0] = attrs.HardwareAddr[0]&^1 | 2
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, err
	}
	return netlink.LinkByName(b.Name)
}

func bridgeSysctls(b Bridge) error {
	conf6 := "net/ipv6/conf/" + b.Name + "/"
	// Never listen to a router: it would be a container.
	set := [][2]string{{conf6 + "accept_ra", "0"}}
	if b.IPv6 {
		set = append(set, [2]string{conf6 + "disable_ipv6", "0"}, [2]string{conf6 + "forwarding", "1"})
	} else {
		set = append(set, [2]string{conf6 + "disable_ipv6", "1"})
	}
	if b.Localhost {
		set = append(set, [2]string{"net/ipv4/conf/" + b.Name + "/route_localnet", "1"})
	}
	for _, s := range set {
		if err := WriteSysctl(s[0], s[1]); err != nil && (b.IPv6 || !errors.Is(err, os.ErrNotExist)) {
			return fmt.Errorf("configure bridge %s: %w", b.Name, err)
		}
	}
	return nil
}

// DeleteOwned deletes an interface that a network is made of if it is of the
// group; none is no error.
func DeleteOwned(name string, group uint32) error {
	l, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil
	case err != nil:
		return fmt.Errorf("find interface %s: %w", name, err)
	case l.Attrs().Group != group || !ofNetwork(l):
		return nil // it was there before us, or is a container's
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// Owned lists the host's interfaces of the group by name: ends of containers',
// and what networks are made of, which is bridges and parents of macvlan and
// ipvlan.
func Owned(group uint32) (veths, networks []string, err error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Group != group {
			continue
		}
		switch {
		case l.Type() == "veth":
			veths = append(veths, l.Attrs().Name)
		case ofNetwork(l):
			networks = append(networks, l.Attrs().Name)
		}
	}
	return veths, networks, nil
}

func ofNetwork(l netlink.Link) bool {
	switch l.Type() {
	case "bridge", "dummy", "vlan":
		return true
	}
	return false
}

// Address is the first IPv4 address of the named interface; invalid if there is
// none or no such interface.
func Address(name string) netip.Prefix { return address(name, netlink.FAMILY_V4) }

// Address6 is the first IPv6 address that is valid beyond the interface.
func Address6(name string) netip.Prefix { return address(name, netlink.FAMILY_V6) }

func address(name string, family int) netip.Prefix {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return netip.Prefix{}
	}
	addrs, _ := addresses(l, family)
	for _, a := range addrs {
		if p := toPrefix(a.IPNet); p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast() {
			return p
		}
	}
	return netip.Prefix{}
}

// Routes lists the IPv4 prefixes that the host routes, the default route and
// those through the named interface left out.
func Routes(except string) ([]netip.Prefix, error) { return routes(except, netlink.FAMILY_V4) }

// Routes6 lists the IPv6 prefixes.
func Routes6(except string) ([]netip.Prefix, error) { return routes(except, netlink.FAMILY_V6) }

func routes(except string, family int) ([]netip.Prefix, error) {
	routes, err := dump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	own := -1
	if l, err := netlink.LinkByName(except); err == nil {
		own = l.Attrs().Index
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.LinkIndex == own {
			continue
		}
		if p := toPrefix(r.Dst); p.IsValid() && p.Bits() > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

func addresses(l netlink.Link, family int) ([]netlink.Addr, error) {
	return dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, family) })
}

// dump lists again when the kernel says that the list changed meanwhile.
func dump[T any](list func() ([]T, error)) (out []T, err error) {
	for range 20 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

// Exists reports whether the host has an interface of the name.
func Exists(name string) bool {
	_, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	return !errors.As(err, &missing)
}

// CallsFirewall reports whether bridges hand frames to the firewall as if they
// were routed (br_netfilter): somebody may switch that on at any time.
func CallsFirewall() bool {
	fd, err := unix.Open("/proc/sys/net/bridge/bridge-nf-call-iptables", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	var b [1]byte
	n, err := unix.Read(fd, b[:])
	return err == nil && n == 1 && b[0] != '0'
}
