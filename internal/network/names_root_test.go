//go:build root

package network

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
)

// ask puts a question to the resolver of a sandbox, as a container would.
func (l *lab) ask(s *Sandbox, proto, name string, typ uint16) (*dns.Msg, error) {
	var c net.Conn
	err := l.inside(s, func() (err error) {
		c, err = net.DialTimeout(proto, "127.0.0.11:53", time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	conn := dns.Conn{Conn: c}
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion(dns.Fqdn(name), typ)); err != nil {
		return nil, err
	}
	return conn.ReadMsg()
}

func (l *lab) resolve(s *Sandbox, name string) []string {
	l.t.Helper()
	r, err := l.ask(s, "udp4", name, dns.TypeA)
	if err != nil {
		l.t.Errorf("%s: %v", name, err)
		return nil
	}
	var out []string
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			out = append(out, a.A.String())
		}
	}
	slices.Sort(out)
	return out
}

// upstream serves names of its own at an address of the host.
func (l *lab) upstream(addr string) {
	l.t.Helper()
	pc, err := net.ListenPacket("udp4", addr)
	if err != nil {
		l.t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		if strings.HasPrefix(q.Question[0].Name, "example.") {
			rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.80")
			r.Answer = append(r.Answer, rr)
		} else {
			r.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(r)
	})}
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	go func() { _ = srv.ActivateAndServe() }()
	<-started
	l.t.Cleanup(func() { _ = srv.ShutdownContext(context.Background()) })
}

func TestNames(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	_ = out
	l.upstream("198.51.100.1:53")
	dnsServer := func(s *SandboxSpec) { s.DNS = append(s.DNS, mustAddr("198.51.100.1")) }
	l.network("app")
	l.network("closed", func(r *network.CreateRequest) { r.Internal = true })
	alias := func(as ...string) func(*SandboxSpec) {
		return func(s *SandboxSpec) {
			s.Endpoints[0].Settings.Aliases = as
			s.Domainname = "example.test"
		}
	}
	db1 := l.run("db1", []string{"app"}, alias("db", "Primary"))
	db2 := l.run("db2", []string{"app"}, alias("db"))
	web := l.run("web", []string{"app"}, dnsServer, func(s *SandboxSpec) {
		s.Endpoints[0].Settings.Links = []string{"db1:storage"}
	})
	ip1, ip2 := db1.ip(t, "app").String(), db2.ip(t, "app").String()
	for name, want := range map[string][]string{
		"db1": {ip1}, "DB1": {ip1}, "db1.app": {ip1}, "primary": {ip1}, "db": {ip1, ip2},
		"storage": {ip1}, db2.spec.ID[:12]: {ip2}, "db2-host": {ip2}, "web": {web.ip(t, "app").String()},
		"example.com": {"192.0.2.80"}, "nobody": nil,
	} {
		if got := l.resolve(web, name); !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	t.Run("a link is its container's own", func(t *testing.T) {
		if r, err := l.ask(db2, "udp4", "storage", dns.TypeA); err == nil && len(r.Answer) > 0 {
			t.Errorf("db2 knows web's link: %v", r.Answer)
		}
	})
	t.Run("over TCP", func(t *testing.T) {
		r, err := l.ask(web, "tcp4", "db1", dns.TypeA)
		if err != nil || len(r.Answer) != 1 {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("a known name has no IPv6 address", func(t *testing.T) {
		r, err := l.ask(web, "udp4", "db1", dns.TypeAAAA)
		if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("reverse", func(t *testing.T) {
		rev, _ := dns.ReverseAddr(ip1)
		r, err := l.ask(web, "udp4", rev, dns.TypePTR)
		if err != nil || len(r.Answer) != 1 || r.Answer[0].(*dns.PTR).Ptr != "db1.app." {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("a renamed container", func(t *testing.T) {
		db2.SetName("replica")
		if got := l.resolve(web, "replica"); !slices.Equal(got, []string{ip2}) {
			t.Errorf("replica is %v", got)
		}
		if got := l.resolve(web, "db2"); got != nil {
			t.Errorf("db2 is still %v", got)
		}
	})
	t.Run("nothing is asked outside for an internal network", func(t *testing.T) {
		in := l.run("in", []string{"closed"}, dnsServer)
		r, err := l.ask(in, "udp4", "example.com", dns.TypeA)
		if err != nil || r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%v, %v", r, err)
		}
		if got := l.resolve(in, "in"); len(got) != 1 {
			t.Errorf("in is %v", got)
		}
	})
	t.Run("a container may serve names itself", func(t *testing.T) {
		l.serve(db1, "0.0.0.0:53", "own")
		if got := l.resolve(db1, "db1"); !slices.Equal(got, []string{ip1}) {
			t.Errorf("db1 is %v", got)
		}
		l.reaches(web, "udp4", ip1+":53", "own")
	})
	t.Run("a container that ended", func(t *testing.T) {
		if err := db1.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := l.resolve(web, "db"); !slices.Equal(got, []string{ip2}) {
			t.Errorf("db is %v", got)
		}
	})
}

func TestConnectAndDisconnect(t *testing.T) {
	l := newLab(t)
	out := l.outside()
	l.network("a")
	l.network("b")
	c := l.run("c", []string{"a"}, publish(tcpPort(8080, 80)))
	peer := l.run("peer", []string{"b"})
	l.serve(c, ":80", "c")
	changes := make(chan struct{}, 10)
	c.OnFilesChanged(func() { changes <- struct{}{} })
	info, _ := l.Lookup("b")
	first, _ := l.Lookup("a")

	if err := c.Connect(t.Context(), EndpointSpec{Network: info.ID, Settings: &network.EndpointSettings{Aliases: []string{"cc"}}}); err != nil {
		t.Fatal(err)
	}
	<-changes
	if !strings.Contains(string(c.Hosts()), c.ip(t, "b").String()+"\tc-host\n") {
		t.Errorf("hosts lacks the new address:\n%s", c.Hosts())
	}
	if got := l.resolve(peer, "cc"); !slices.Equal(got, []string{c.ip(t, "b").String()}) {
		t.Errorf("cc is %v", got)
	}
	l.reaches(peer, "tcp4", c.ip(t, "b").String()+":80", "c")
	if err := c.Connect(t.Context(), EndpointSpec{Network: info.ID}); err == nil {
		t.Error("connected twice to a network")
	}

	// Without the network that led out, the other does, and has the port.
	if err := c.Disconnect(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	<-changes
	l.reaches(out, "tcp4", "198.51.100.1:8080", "c")
	l.serve(out, ":82", "out")
	l.reaches(c, "tcp4", "198.51.100.2:82", "out")
	if err := c.Disconnect(t.Context(), first.ID); err == nil {
		t.Error("disconnected twice")
	}
	if err := l.Remove(t.Context(), "a"); err != nil {
		t.Errorf("remove a network that was left: %v", err)
	}
	if err := l.Remove(t.Context(), "b"); err == nil || !strings.Contains(err.Error(), "network b has active endpoints (") ||
		!strings.Contains(err.Error(), `name:"c" id:"`) {
		t.Errorf("remove a network in use: %v", err)
	}
	if err := c.Disconnect(t.Context(), info.ID); err != nil {
		t.Fatal(err)
	}
	<-changes
	l.unreachable(out, "tcp4", "198.51.100.1:8080")
	if len(c.Ports()) != 0 || len(c.Endpoints()) != 0 {
		t.Errorf("left: %v %v", c.Ports(), c.Endpoints())
	}
}

// A container on a network without IPv6 must have no IPv6 address, by which it
// would be reached, or reach others, past what the rules say.
func TestCVE_2024_32473_NoIPv6(t *testing.T) {
	l := newLab(t)
	l.network("user")
	c := l.run("c", []string{"bridge", "user"})
	err := l.inside(c, func() error {
		for _, i := range []string{"eth0", "eth1"} {
			for knob, want := range map[string]string{"disable_ipv6": "1", "accept_ra": "0"} {
				b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + i + "/" + knob)
				if err == nil && strings.TrimSpace(string(b)) != want {
					t.Errorf("%s of %s is %s", knob, i, b)
				}
			}
		}
		all, err := net.InterfaceAddrs()
		for _, a := range all {
			if ip := a.(*net.IPNet).IP; ip.To4() == nil && !ip.IsLoopback() {
				t.Errorf("address %s", a)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(l.veths(), "skiff0") {
		i, err := net.InterfaceByName(name)
		if err != nil {
			continue // its container ended
		}
		all, _ := i.Addrs()
		for _, a := range all {
			if a.(*net.IPNet).IP.To4() == nil {
				t.Errorf("%s has %s on the host", name, a)
			}
		}
	}
}
