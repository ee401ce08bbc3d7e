//go:build root

package apply

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-containers/skiff/internal/network/nstest"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func port(host, proto, to string) rules.Port {
	p := rules.Port{Proto: proto, To: netip.MustParseAddrPort(to)}
	if host != "" {
		p.Host = netip.MustParseAddrPort(host)
	}
	return p
}

func host() rules.Host {
	subnet := func(p string) rules.Subnet {
		return rules.Subnet{Prefix: netip.MustParsePrefix(p), Masquerade: true}
	}
	routed := rules.Subnet{Prefix: netip.MustParsePrefix("2001:db8:3::/64"), Routed: true, Open: true}
	return rules.Host{
		Table: "skiff",
		Networks: []rules.Network{
			{Bridge: "skiff0", V4: subnet("172.17.0.0/16"), ICC: true},
			{Bridge: "br-1", V4: subnet("172.18.0.0/16"), V6: subnet("fd00:18::/64"), ICC: true, Internal: true},
			{Bridge: "br-2", V4: subnet("172.19.0.0/16"), V6: subnet("fd00:19::/72")},
			{Bridge: "br-3", V4: subnet("172.20.0.0/16"), V6: routed, ICC: true, Trusted: []string{"eth0"}},
		},
		Ports: []rules.Port{
			port("0.0.0.0:8080", "tcp", "172.17.0.2:80"), port("0.0.0.0:53", "udp", "172.17.0.2:53"),
			port("127.0.0.1:9090", "tcp", "172.19.0.2:90"), port("", "tcp", "172.20.0.2:80"),
			port("[::]:8080", "tcp", "[fd00:19::2]:80"), port("[2001:db8::1]:53", "udp", "[fd00:19::2]:53"),
			port("", "udp", "[2001:db8:3::2]:80"), port("0.0.0.0:38412", "sctp", "172.17.0.2:38412"),
		},
		OnlyOurs: true, OnlyOurs6: true,
	}
}

// The kernel must hold what the text says: nft, fed with the text, makes the
// same table as we do by netlink.
func TestTheKernelHoldsWhatTheTextSays(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("no nft to compare with")
	}
	fw, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	for _, table := range []rules.Table{host().Build(rules.IPv4), host().Build(rules.IPv6), rules.Resolver("skiff_dns", netip.MustParseAddr("127.0.0.11"), 40000, 40001)} {
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader(table.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft does not read our text: %v\n%s\n%s", err, out, table)
		}
		family := "ip"
		if table.Family == rules.IPv6 {
			family = "ip6"
		}
		list := func() string {
			out, err := exec.Command(nft, "list", "table", family, table.Name).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return string(out)
		}
		want := list()
		if err := fw.Delete(table.Family, table.Name); err != nil {
			t.Fatal(err)
		}
		if err := fw.Replace(table); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, list()); diff != "" {
			t.Errorf("-nft +ours:\n%s", diff)
		}
		if err := fw.Delete(table.Family, table.Name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPortsComeAndGo(t *testing.T) {
	fw, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	h := host()
	h.Table = "other"
	if ps, err := fw.Ports("other"); err != nil || len(ps) != 0 {
		t.Fatalf("ports of no table: %v, %v", ps, err)
	}
	if err := fw.Replace(h.Build(rules.IPv4), h.Build(rules.IPv6)); err != nil {
		t.Fatal(err)
	}
	added := []rules.Port{
		port("10.0.0.1:81", "udp", "172.17.0.3:82"), port("[::1]:81", "tcp", "[fd00:19::3]:82"), port("", "tcp", "172.20.0.3:81"),
	}
	elements := map[SetOf][]rules.Element{}
	for _, p := range added {
		set, e := p.Element()
		elements[SetOf{p.Family(), set}] = append(elements[SetOf{p.Family(), set}], e)
	}
	if err := fw.AddElements("other", elements); err != nil {
		t.Fatal(err)
	}
	got := map[rules.Port]bool{}
	ps, err := fw.Ports("other")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		got[p] = true
	}
	want := map[rules.Port]bool{}
	for _, p := range append(added, h.Ports...) {
		want[p] = true
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := fw.DeleteElements("other", elements); err != nil {
		t.Fatal(err)
	}
	if ps, _ = fw.Ports("other"); len(ps) != len(h.Ports) {
		t.Errorf("after removal: %v", ps)
	}
	for _, f := range []rules.Family{rules.IPv4, rules.IPv6} {
		if err := fw.Delete(f, "other"); err != nil {
			t.Fatal(err)
		}
		if ok, err := fw.Exists(f, "other"); ok || err != nil {
			t.Errorf("exists after Delete: %v, %v", ok, err)
		}
	}
}

// TestManyPorts has more ports than one message can carry, and than the kernel
// takes in one transaction by default.
func TestManyPorts(t *testing.T) {
	fw, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	h := host()
	h.Table, h.Ports = "many", nil
	add := map[SetOf][]rules.Element{}
	for i := range 15000 {
		to4 := netip.AddrPortFrom(netip.MustParseAddr("172.17.0.2"), uint16(i+1))
		to6 := netip.AddrPortFrom(netip.MustParseAddr("fd00:19::2"), uint16(i+1))
		ps := []rules.Port{
			{Host: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i+1)), Proto: "tcp", To: to4},
			{Host: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(i+1)), Proto: "udp", To: to4},
			{Host: netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), uint16(i+1)), Proto: "tcp", To: to6},
			{Proto: "tcp", To: to6},
		}
		h.Ports = append(h.Ports, ps...)
		for _, p := range ps {
			set, e := p.Element()
			at := SetOf{p.Family(), set}
			add[at] = append(add[at], e)
		}
	}
	without := h
	without.Ports = nil
	count := func(what string) int {
		t.Helper()
		ps, err := fw.Ports(h.Table)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := map[rules.Port]bool{}
		for _, p := range ps {
			got[p] = true
		}
		return len(got)
	}
	check := func(what string, n int) {
		t.Helper()
		got := count(what)
		// While the kernel is enlarging its hash table, aside, a reader may miss some.
		for end := time.Now().Add(5 * time.Second); got != n && time.Now().Before(end); got = count(what) {
			time.Sleep(50 * time.Millisecond)
		}
		if got != n {
			t.Errorf("%s: %d ports, want %d", what, got, n)
		}
	}
	for _, step := range []struct {
		what string
		do   func() error
		n    int
	}{
		{"replace none", func() error { return fw.Replace(without.Build(rules.IPv4), without.Build(rules.IPv6)) }, 0},
		{"add", func() error { return fw.AddElements(h.Table, add) }, len(h.Ports)},
		{"delete", func() error { return fw.DeleteElements(h.Table, add) }, 0},
		{"replace by all", func() error { return fw.Replace(h.Build(rules.IPv4), h.Build(rules.IPv6)) }, len(h.Ports)},
		{"replace all by all", func() error { return fw.Replace(h.Build(rules.IPv4), h.Build(rules.IPv6)) }, len(h.Ports)},
		{"delete all at once", func() error { return fw.DeleteElements(h.Table, add) }, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		check(step.what, step.n)
	}
	// None of a change that fails in its last message is left.
	half := map[SetOf][]rules.Element{}
	for set, es := range add {
		half[set] = es[:len(es)/2]
	}
	if err := fw.AddElements(h.Table, half); err != nil {
		t.Fatal(err)
	}
	if err := fw.DeleteElements(h.Table, add); err == nil {
		t.Error("what is not there was deleted")
	}
	check("after a failure", len(h.Ports)/2)
	for _, f := range []rules.Family{rules.IPv4, rules.IPv6} {
		if err := fw.Delete(f, h.Table); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkPort(b *testing.B) {
	fw, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = fw.Close() }()
	if err := fw.Replace(host().Build(rules.IPv4)); err != nil {
		b.Fatal(err)
	}
	p := rules.Port{Host: netip.MustParseAddrPort("10.0.0.1:81"), Proto: "udp", To: netip.MustParseAddrPort("172.17.0.3:82")}
	set, e := p.Element()
	b.Run("add and delete", func(b *testing.B) {
		for b.Loop() {
			if err := fw.AddElements("skiff", map[SetOf][]rules.Element{{rules.IPv4, set}: {e}}); err != nil {
				b.Fatal(err)
			}
			if err := fw.DeleteElements("skiff", map[SetOf][]rules.Element{{rules.IPv4, set}: {e}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("replace", func(b *testing.B) {
		for b.Loop() {
			if err := fw.Replace(host().Build(rules.IPv4)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
