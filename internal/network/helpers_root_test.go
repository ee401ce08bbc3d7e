//go:build root

package network

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/meta"
	"github.com/skiff-containers/skiff/internal/network/apply"
	"github.com/skiff-containers/skiff/internal/network/link"
	"github.com/skiff-containers/skiff/internal/network/nstest"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// recorder collects events.
type recorder struct {
	mu  sync.Mutex
	got []string
}

func (r *recorder) Publish(t events.Type, a events.Action, id string, attrs map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, fmt.Sprintf("%s %s %s %s %s", t, a, attrs["name"], attrs["type"], attrs["container"]))
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// lab is a manager on a host of its own.
type lab struct {
	t testing.TB
	*Manager
	o      Options
	db     *meta.DB
	spaces *link.Spaces // of the test itself: open while there is no manager
	events *recorder
}

func newLab(t testing.TB, change ...func(*Options)) *lab {
	t.Helper()
	dir := t.TempDir()
	db, err := meta.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := meta.NewTable[Record](db, "networks")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, db: db, events: &recorder{}}
	if l.spaces, err = link.OpenSpaces(); err != nil {
		t.Fatal(err)
	}
	var logs io.Writer = io.Discard
	if testing.Verbose() {
		logs = os.Stderr
	}
	l.o = Options{
		PoolSize: 3, RunDir: filepath.Join(dir, "run"), Table: table, Events: l.events,
		Log: slog.New(slog.NewTextHandler(logs, nil)),
	}
	for _, c := range change {
		c(&l.o)
	}
	l.start()
	t.Cleanup(l.wipe)
	return l
}

func (l *lab) start() {
	l.t.Helper()
	m, err := New(context.Background(), l.o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.Manager = m
}

// restart replaces the manager as a killed and restarted daemon would.
func (l *lab) restart() {
	l.t.Helper()
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.start()
}

// wipe leaves the namespace as it was found.
func (l *lab) wipe() {
	_ = l.Close()
	_ = l.db.Close()
	_ = l.spaces.Close()
	veths, bridges, err := link.Owned(l.group)
	if err != nil {
		l.t.Error(err)
	}
	for _, n := range append(veths, bridges...) {
		if nl, err := netlink.LinkByName(n); err == nil {
			_ = netlink.LinkDel(nl)
		}
	}
	fw, err := apply.Open()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range []rules.Family{rules.IPv4, rules.IPv6} {
		_ = fw.Delete(f, "skiff")
	}
	_ = fw.Close()
}

func (l *lab) network(name string, change ...func(*network.CreateRequest)) string {
	l.t.Helper()
	r := &network.CreateRequest{Name: name}
	for _, c := range change {
		c(r)
	}
	res, err := l.Create(context.Background(), r)
	if err != nil {
		l.t.Fatal(err)
	}
	return res.ID
}

// run makes a sandbox on the networks.
func (l *lab) run(name string, nets []string, change ...func(*SandboxSpec)) *Sandbox {
	l.t.Helper()
	s, err := l.tryRun(name, nets, change...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = s.Close(context.Background()) })
	for _, e := range s.attached() {
		if a := e.addr6.Addr(); a.IsValid() {
			l.listens6(s, a)
		}
	}
	return s
}

// listens6 waits until the kernel has joined the group by which neighbours ask
// for the address, some milliseconds after it was given: who asks before asks
// again a second later.
func (l *lab) listens6(s *Sandbox, a netip.Addr) {
	l.t.Helper()
	b := a.As16()
	group := fmt.Sprintf("ff0200000000000000000001ff%02x%02x%02x", b[13], b[14], b[15])
	eventually(l.t, "listening for neighbours", func() bool {
		var groups []byte
		err := l.inside(s, func() (err error) { groups, err = os.ReadFile("/proc/thread-self/net/igmp6"); return err })
		return err == nil && strings.Contains(string(groups), group)
	})
}

func (l *lab) tryRun(name string, nets []string, change ...func(*SandboxSpec)) (*Sandbox, error) {
	spec := SandboxSpec{ID: ids.New(), Name: name, Hostname: name + "-host"}
	for _, n := range nets {
		info, err := l.Lookup(n)
		if err != nil {
			return nil, err
		}
		spec.Endpoints = append(spec.Endpoints, EndpointSpec{Network: info.ID, Settings: &network.EndpointSettings{}})
	}
	for _, c := range change {
		c(&spec)
	}
	return l.NewSandbox(context.Background(), spec)
}

func publish(specs ...PortSpec) func(*SandboxSpec) {
	return func(s *SandboxSpec) { s.Ports = specs }
}

func tcpPort(host, container uint16) PortSpec {
	p, _ := network.PortFrom(container, network.TCP)
	return PortSpec{Container: p, HostPort: host}
}

func udpPort(host, container uint16) PortSpec {
	p, _ := network.PortFrom(container, network.UDP)
	return PortSpec{Container: p, HostPort: host}
}

func (s *Sandbox) ip(t testing.TB, net string) netip.Addr {
	t.Helper()
	e := s.Endpoints()[net]
	if e == nil {
		t.Fatalf("%s is not on %s", s.Name(), net)
	}
	return e.IPAddress
}

// inside runs f in a sandbox's namespace, or in the host's for nil.
func (l *lab) inside(s *Sandbox, f func() error) error {
	if s == nil {
		return f()
	}
	return l.spaces.In(s.ns, f)
}

// serve answers each TCP line and UDP datagram at the address with its name and
// the peer's address.
func (l *lab) serve(s *Sandbox, addr, name string) {
	l.t.Helper()
	err := l.inside(s, func() error {
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				go func() {
					defer func() { _ = c.Close() }()
					_, _ = fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr().(*net.TCPAddr).IP)
					_, _ = io.Copy(io.Discard, c)
				}()
			}
		}()
		go func() {
			buf := make([]byte, 1500)
			for {
				_, from, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo([]byte(name+" "+from.(*net.UDPAddr).IP.String()+"\n"), from)
			}
		}()
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// call asks a server of serve from within s.
func (l *lab) call(s *Sandbox, proto, addr string) (answer string, err error) {
	return l.callFor(3*time.Second, s, proto, addr)
}

func (l *lab) callFor(d time.Duration, s *Sandbox, proto, addr string) (answer string, err error) {
	var c net.Conn
	err = l.inside(s, func() (err error) {
		c, err = net.DialTimeout(proto, addr, d)
		return err
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(700 * time.Millisecond))
	if strings.HasPrefix(proto, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (l *lab) reaches(from *Sandbox, proto, addr, want string) {
	l.t.Helper()
	got, err := l.call(from, proto, addr)
	if err != nil {
		l.t.Errorf("%s %s: %v", proto, addr, err)
	} else if got != want && strings.Fields(got)[0] != want {
		l.t.Errorf("%s %s answers %q, want %q", proto, addr, got, want)
	}
}

func (l *lab) unreachable(from *Sandbox, proto, addr string) {
	l.t.Helper()
	if got, err := l.callFor(200*time.Millisecond, from, proto, addr); err == nil {
		l.t.Errorf("%s %s is reachable: %q", proto, addr, got)
	}
}

// outside is a neighbour of the host: a namespace at 198.51.100.2, the host being
// 198.51.100.1 to it, and likewise 2001:db8:99::2 and ::1.
func (l *lab) outside() *Sandbox {
	l.t.Helper()
	sp, err := l.spaces.Make(nil)
	if err != nil {
		l.t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "wan0"
	v := &netlink.Veth{LinkAttrs: attrs, PeerName: "wan1", PeerNamespace: netlink.NsFd(int(sp.File.Fd()))}
	if err := netlink.LinkAdd(v); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { sp.Close(); _ = netlink.LinkDel(v) })
	up := func(name, addr string) error {
		nl, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(nl, a); err != nil {
			return err
		}
		return netlink.LinkSetUp(nl)
	}
	if err := up("wan0", "198.51.100.1/24"); err != nil {
		l.t.Fatal(err)
	}
	client := &Sandbox{m: l.Manager, ns: sp.File, name: "outside"}
	if err := up("wan0", "2001:db8:99::1/64"); err != nil {
		l.t.Fatal(err)
	}
	err = l.inside(client, func() error {
		if err := link.WriteSysctl("net/ipv6/conf/wan1/disable_ipv6", "0"); err != nil {
			return err
		}
		if err := up("wan1", "2001:db8:99::2/64"); err != nil {
			return err
		}
		return up("wan1", "198.51.100.2/24")
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return client
}

// eventually waits for something the kernel or a goroutine does by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		runtime.Gosched()
	}
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }
