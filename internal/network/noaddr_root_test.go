//go:build root

package network

import (
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/skiff-containers/skiff/internal/network/link"
)

// interfaces writes the sandbox's interfaces with their addresses.
func (l *lab) interfaces(s *Sandbox) map[string][]string {
	l.t.Helper()
	out := map[string][]string{}
	err := l.inside(s, func() error {
		ifs, err := net.Interfaces()
		for _, i := range ifs {
			if i.Flags&net.FlagLoopback != 0 {
				continue
			}
			out[i.Name] = []string{i.HardwareAddr.String()}
			as, _ := i.Addrs()
			for _, a := range as {
				out[i.Name] = append(out[i.Name], a.String())
			}
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// A network of neither family has interfaces and no addresses: what is in the
// container asks for some, or speaks no IP.
func TestANetworkWithoutAddresses(t *testing.T) {
	no := false
	for _, driver := range []string{link.Macvlan, link.IPvlan} {
		for _, ipam := range []string{"", ipamNull} {
			t.Run(driver+" "+ipam, func(t *testing.T) {
				l := newLab(t)
				l.needsKinds(driver)
				out := l.outside()
				l.network("n", on(driver, "parent=wan0"), func(r *network.CreateRequest) {
					r.EnableIPv4 = &no
					if ipam != "" {
						r.IPAM = &network.IPAM{Driver: ipam}
					}
				})
				info, err := l.Inspect("n")
				if err != nil || len(info.IPAM.Config) != 0 || info.EnableIPv4 || info.EnableIPv6 || ipam != "" && info.IPAM.Driver != ipam {
					t.Errorf("%+v, %v", info, err)
				}
				a, b := l.run("a", []string{"n"}, publish(tcpPort(8080, 80))), l.run("b", []string{"n"})
				e := a.Endpoints()["n"]
				mac := e.MacAddress.String()
				if driver == link.Macvlan && (len(e.MacAddress) != 6 || mac == b.Endpoints()["n"].MacAddress.String()) {
					t.Errorf("hardware addresses %s and %s", mac, b.Endpoints()["n"].MacAddress)
				}
				if driver == link.Macvlan {
					if diff := cmp.Diff(map[string][]string{"eth0": {mac}}, l.interfaces(a)); diff != "" {
						t.Error(diff)
					}
				}
				if e.IPAddress.IsValid() || e.GlobalIPv6Address.IsValid() || len(a.Ports()) != 0 || l.defaultRoutes(a) != nil {
					t.Errorf("%+v, ports %v, routes %v", e, a.Ports(), l.defaultRoutes(a))
				}
				// It is a link: an address of the container's own choice works.
				err = l.inside(a, func() error {
					nl, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					addr, err := netlink.ParseAddr("198.51.100.77/24")
					if err != nil {
						return err
					}
					return netlink.AddrAdd(nl, addr)
				})
				if err != nil {
					t.Fatal(err)
				}
				l.serve(a, "198.51.100.77:80", "a")
				l.reaches(out, "tcp", "198.51.100.77:80", "a")
				// Beside a network that leads out, and after a restart.
				bridge, _ := l.Lookup("bridge")
				if err := b.Connect(t.Context(), EndpointSpec{Network: bridge.ID}); err != nil {
					t.Fatal(err)
				}
				if got := l.defaultRoutes(b); !slices.Equal(got, []string{"172.17.0.1 eth1"}) {
					t.Errorf("routes %v", got)
				}
				pid, st := l.process(a), a.State()
				l.restart()
				again, err := l.AdoptSandbox(t.Context(), st, pid, 0)
				if err != nil {
					t.Fatal(err)
				}
				if got := again.Endpoints()["n"].MacAddress.String(); got != mac {
					t.Errorf("hardware address after a restart: %s", got)
				}
				if err := again.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
