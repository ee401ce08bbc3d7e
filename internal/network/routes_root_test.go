//go:build root

package network

import (
	"net"

	"github.com/vishvananda/netlink"

	"github.com/skiff-containers/skiff/internal/network/link"
)

// routeLoopback makes a namespace send what is for 127.0.0.1 to the gateway.
func (l *lab) routeLoopback(s *Sandbox, gw string) {
	l.t.Helper()
	err := l.inside(s, func() error {
		name := "wan1"
		if s.name != "outside" {
			name = "eth0"
		}
		nl, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, k := range []string{"all", name} {
			if err := link.WriteSysctl("net/ipv4/conf/"+k+"/route_localnet", "1"); err != nil {
				return err
			}
		}
		// The local table comes first: take the loopback's routes out of it.
		for _, r := range []netlink.Route{
			{LinkIndex: 1, Table: 255, Type: 2, Scope: netlink.SCOPE_HOST, Dst: cidr("127.0.0.0/8")},
			{LinkIndex: 1, Table: 255, Type: 2, Scope: netlink.SCOPE_HOST, Dst: cidr("127.0.0.1/32")},
		} {
			if err := netlink.RouteDel(&r); err != nil {
				return err
			}
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: nl.Attrs().Index, Dst: cidr("127.0.0.1/32"), Gw: net.ParseIP(gw)})
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) addDefaultRoute(s *Sandbox, gw string) {
	l.t.Helper()
	err := l.inside(s, func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: cidr("0.0.0.0/0"), Gw: net.ParseIP(gw)})
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) bridgeAddr(name string) string {
	l.t.Helper()
	i, err := l.Inspect(name)
	if err != nil {
		l.t.Fatal(err)
	}
	return i.IPAM.Config[0].Gateway.String()
}

func cidr(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}
