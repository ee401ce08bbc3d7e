package network

import (
	"context"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/network/rules"
)

// forgetFlows makes the kernel forget UDP flows to the ports. A flow that is
// known goes on where it went, however often the table changes: a client that
// keeps sending would never reach a container that started after it, or would
// send to one that is gone. (TCP connections end by themselves.) It reads all
// of the host's flows, so it happens aside.
func (m *Manager) forgetFlows(bs []*binding) {
	var filters []netlink.CustomConntrackFilter
	families := map[netlink.InetFamily]bool{}
	for _, b := range bs {
		if b.port.proto != network.UDP || b.port.port == 0 {
			continue
		}
		for _, p := range b.rules() {
			if p.Family() == rules.IPv6 {
				families[unix.AF_INET6] = true
			} else {
				families[unix.AF_INET] = true
			}
		}
		f := &netlink.ConntrackFilter{}
		if f.AddProtocol(unix.IPPROTO_UDP) == nil && f.AddPort(netlink.ConntrackOrigDstPort, b.port.port) == nil {
			filters = append(filters, f)
		}
	}
	if len(filters) == 0 {
		return
	}
	m.bg.Go(func() {
		for family := range families {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filters...); err != nil {
				m.o.Log.WarnContext(context.Background(), "cannot forget UDP flows of published ports", "error", err)
			}
		}
	})
}
