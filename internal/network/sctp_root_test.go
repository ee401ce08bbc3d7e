//go:build root

package network

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"
)

func sctpPort(host, container uint16) PortSpec {
	p, _ := network.PortFrom(container, network.SCTP)
	return PortSpec{Container: p, HostPort: host}
}

// sctpPacket is one chunk as it goes over the wire.
func sctpPacket(from, to uint16, tag uint32, chunk byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, 0, 0, 0, 0) // the checksum
	b = append(b, chunk, 0, 0, 20)
	b = append(b, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func (l *lab) rawSCTP(s *Sandbox, at string) *net.IPConn {
	l.t.Helper()
	var c *net.IPConn
	err := l.inside(s, func() (err error) {
		c, err = net.ListenIP("ip4:132", &net.IPAddr{IP: net.ParseIP(at)})
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	return c
}

// The kernel need not have the protocol itself: the packets are made by hand.
func TestSCTPPortsArePublished(t *testing.T) {
	l := newLab(t)
	client := l.outside()
	s := l.run("amf", []string{"bridge"}, publish(sctpPort(38412, 9999), sctpPort(0, 80), tcpPort(38412, 80)))
	p, _ := network.PortFrom(9999, network.SCTP)
	want := []network.PortBinding{{HostIP: netip.IPv4Unspecified(), HostPort: "38412"}}
	if diff := cmp.Diff(want, s.Ports()[p], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("ports -want +got:\n%s", diff)
	}
	ip := s.ip(t, "bridge").String()
	if ports := l.kernelPorts(); !slices.Contains(ports, "0.0.0.0:38412/sctp "+ip+":9999") {
		t.Errorf("the kernel has %q", ports)
	}

	server, out := l.rawSCTP(s, ip), l.rawSCTP(client, "198.51.100.2")
	if _, err := out.WriteTo(sctpPacket(5000, 38412, 0, 1), &net.IPAddr{IP: net.ParseIP("198.51.100.1")}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := server.ReadFrom(buf)
	if err != nil {
		t.Fatal("nothing came to the container:", err)
	}
	if got := buf[:n]; !cmp.Equal(got, sctpPacket(5000, 9999, 0, 1)) || from.String() != "198.51.100.2" {
		t.Errorf("the container got % x from %s", got, from)
	}
	if _, err := server.WriteTo(sctpPacket(9999, 5000, 7, 2), from); err != nil {
		t.Fatal(err)
	}
	n, from, err = out.ReadFrom(buf)
	if err != nil {
		t.Fatal("no answer:", err)
	}
	if got := buf[:n]; !cmp.Equal(got, sctpPacket(38412, 5000, 7, 2)) || from.String() != "198.51.100.1" {
		t.Errorf("the answer is % x from %s", got, from)
	}

	if _, err := l.tryRun("second", []string{"bridge"}, publish(sctpPort(38412, 1))); err == nil || !strings.Contains(err.Error(), "port is already allocated") {
		t.Errorf("a taken port: %v", err)
	}
	on6 := sctpPort(38413, 1)
	on6.HostIP = netip.IPv6Loopback()
	if _, err := l.tryRun("third", []string{"bridge"}, publish(on6)); err == nil || !strings.Contains(err.Error(), "sctp") {
		t.Errorf("what the firewall cannot serve: %v", err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if ports := l.kernelPorts(); len(ports) != 0 {
		t.Errorf("left: %q", ports)
	}
}
