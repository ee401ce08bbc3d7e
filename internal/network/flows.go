package network

import (
	"context"

	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetFlows makes the kernel forget UDP flows to the ports. A flow that is
// known goes on where it went, however often the table changes: a client that
// keeps sending would never reach a container that started after it, or would
// send to one that is gone. (TCP connections end by themselves.) It reads all
// of the host's flows, so it happens aside.
func (m *Manager) forgetFlows(bs []*binding) {
	var filters []netlink.CustomConntrackFilter
	for _, b := range bs {
		if b.port.proto != network.UDP {
			continue
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
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filters...); err != nil {
			m.o.Log.WarnContext(context.Background(), "cannot forget UDP flows of published ports", "error", err)
		}
	})
}
