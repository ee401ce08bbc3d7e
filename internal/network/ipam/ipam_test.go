package ipam

import (
	"net/netip"
	"testing"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

func TestPoolIsChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		c    Config
		gw   string
		kind errs.Kind
		bad  bool
	}{
		"a gateway is chosen":              {c: Config{Subnet: prefix("10.1.0.0/24")}, gw: "10.1.0.1"},
		"host bits of a subnet are masked": {c: Config{Subnet: prefix("10.1.0.77/24")}, gw: "10.1.0.1"},
		"a gateway comes from the range":   {c: Config{Subnet: prefix("10.1.0.0/16"), Range: prefix("10.1.5.0/24")}, gw: "10.1.5.0"},
		"a gateway is given":               {c: Config{Subnet: prefix("10.1.0.0/24"), Gateway: addr("10.1.0.254")}, gw: "10.1.0.254"},
		"auxiliary addresses are skipped":  {c: Config{Subnet: prefix("10.1.0.0/24"), Aux: map[string]netip.Addr{"router": addr("10.1.0.1")}}, gw: "10.1.0.2"},
		"a foreign gateway":                {c: Config{Subnet: prefix("10.1.0.0/24"), Gateway: addr("10.2.0.1")}, bad: true},
		"the broadcast address as gateway": {c: Config{Subnet: prefix("10.1.0.0/24"), Gateway: addr("10.1.0.255")}, bad: true},
		"a foreign range":                  {c: Config{Subnet: prefix("10.1.0.0/24"), Range: prefix("10.2.0.0/28")}, bad: true},
		"a range wider than the subnet":    {c: Config{Subnet: prefix("10.1.0.0/24"), Range: prefix("10.1.0.0/16")}, bad: true},
		"a foreign auxiliary address":      {c: Config{Subnet: prefix("10.1.0.0/24"), Aux: map[string]netip.Addr{"x": addr("10.2.0.1")}}, bad: true},
		"an IPv6 subnet":                   {c: Config{Subnet: prefix("fd00::/64")}, gw: "fd00::1"},
		"a range of an IPv6 subnet":        {c: Config{Subnet: prefix("fd00::/64"), Range: prefix("fd00::a:0/112"), Gateway: addr("fd00::ffff")}, gw: "fd00::ffff"},
		"a gateway of the other family":    {c: Config{Subnet: prefix("fd00::/64"), Gateway: addr("10.1.0.1")}, bad: true},
		"a range of the other family":      {c: Config{Subnet: prefix("fd00::/24"), Range: prefix("10.1.0.0/24")}, bad: true},
		"any router's address as gateway":  {c: Config{Subnet: prefix("fd00::/64"), Gateway: addr("fd00::")}, bad: true},
		"a small IPv6 subnet":              {c: Config{Subnet: prefix("fd00::/126")}, gw: "fd00::1"},
		"too small for IPv6":               {c: Config{Subnet: prefix("fd00::/127")}, bad: true},
		"link-local":                       {c: Config{Subnet: prefix("fe80::/64")}, bad: true},
		"IPv6 multicast":                   {c: Config{Subnet: prefix("ff02::/64")}, bad: true},
		"IPv6 loopback":                    {c: Config{Subnet: prefix("::/64")}, bad: true},
		"IPv4 in IPv6":                     {c: Config{Subnet: prefix("::ffff:10.0.0.0/104")}, bad: true},
		"loopback":                         {c: Config{Subnet: prefix("127.0.0.0/8")}, bad: true},
		"around loopback":                  {c: Config{Subnet: prefix("126.0.0.0/7")}, bad: true},
		"multicast":                        {c: Config{Subnet: prefix("224.1.0.0/24")}, bad: true},
		"no subnet":                        {bad: true},
		"too small":                        {c: Config{Subnet: prefix("10.1.0.0/31")}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(tc.c)
			if tc.bad {
				if !errs.Is(err, errs.Invalid) {
					t.Fatalf("want an error of kind invalid, got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.Gateway() != addr(tc.gw) {
				t.Errorf("gateway %s, want %s", p.Gateway(), tc.gw)
			}
		})
	}
}

func TestLowestFreeAddressFirst(t *testing.T) {
	p, err := New(Config{Subnet: prefix("10.1.0.0/29")})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want string) {
		t.Helper()
		a, err := p.Next()
		if want == "" {
			if !errs.Is(err, errs.Unavailable) {
				t.Fatalf("want exhaustion, got %s, %v", a, err)
			}
			return
		}
		if err != nil || a != addr(want) {
			t.Fatalf("got %s, %v; want %s", a, err, want)
		}
	}
	next("10.1.0.2")
	next("10.1.0.3")
	if err := p.Take(addr("10.1.0.4")); err != nil {
		t.Fatal(err)
	}
	if err := p.Take(addr("10.1.0.4")); !errs.Is(err, errs.Denied) {
		t.Fatalf("taken twice: %v", err)
	}
	if err := p.Take(addr("10.9.0.4")); !errs.Is(err, errs.Invalid) {
		t.Fatalf("foreign address: %v", err)
	}
	next("10.1.0.5")
	next("10.1.0.6")
	next("")
	p.Release(addr("10.1.0.5"))
	p.Release(addr("10.1.0.3"))
	p.Release(addr("10.1.0.3"))
	next("10.1.0.3")
	next("10.1.0.5")
	next("")
	if used, free := p.Used(); used != 8 || free != 0 {
		t.Errorf("used %d, free %d", used, free)
	}
}

func TestFixedAddressesMayLieOutsideTheRange(t *testing.T) {
	p, err := New(Config{Subnet: prefix("10.1.0.0/24"), Range: prefix("10.1.0.128/30"), Gateway: addr("10.1.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Take(addr("10.1.0.9")); err != nil {
		t.Fatal(err)
	}
	p.Release(addr("10.1.0.9"))
	for _, want := range []string{"10.1.0.128", "10.1.0.129", "10.1.0.130", "10.1.0.131"} {
		if a, err := p.Next(); err != nil || a != addr(want) {
			t.Fatalf("got %s, %v; want %s", a, err, want)
		}
	}
	if a, err := p.Next(); err == nil {
		t.Fatalf("handed out %s", a)
	}
}

func TestChoose(t *testing.T) {
	small := []Range{{prefix("10.0.0.0/8"), 16}, {prefix("192.168.0.0/16"), 20}}
	for name, tc := range map[string]struct {
		pools []Range
		used  []netip.Prefix
		want  string
	}{
		"nothing in use":                {DefaultRanges(), nil, "172.17.0.0/16"},
		"nothing of IPv6 in use":        {append(DefaultRanges(), ULA("host")), nil, "fd63:47b0:172c::/64"},
		"an IPv6 subnet in use":         {[]Range{{prefix("10.0.0.0/8"), 24}, {prefix("fd00:1::/48"), 64}}, []netip.Prefix{prefix("fd00:1::/63"), prefix("10.0.0.0/8")}, "fd00:1:0:2::/64"},
		"the last IPv6 subnet":          {[]Range{{prefix("fd00:1::/48"), 56}}, []netip.Prefix{prefix("fd00:1::/49"), prefix("fd00:1:0:8000::/50"), prefix("fd00:1:0:c000::/51"), prefix("fd00:1:0:e000::/52"), prefix("fd00:1:0:f000::/53"), prefix("fd00:1:0:f800::/54"), prefix("fd00:1:0:fc00::/55"), prefix("fd00:1:0:fe00::/56")}, "fd00:1:0:ff00::/56"},
		"the first in use":              {DefaultRanges(), []netip.Prefix{prefix("172.17.0.0/16")}, "172.18.0.0/16"},
		"a part of the first in use":    {DefaultRanges(), []netip.Prefix{prefix("172.17.200.0/24")}, "172.18.0.0/16"},
		"a whole block in use":          {DefaultRanges(), []netip.Prefix{prefix("172.16.0.0/12")}, "192.168.0.0/20"},
		"slices of the last":            {small[1:], []netip.Prefix{prefix("192.168.1.0/24"), prefix("192.168.16.0/20")}, "192.168.32.0/20"},
		"a pool in a larger one in use": {small, []netip.Prefix{prefix("10.0.0.0/9"), prefix("10.128.0.1/32")}, "10.129.0.0/16"},
		"everything in use":             {DefaultRanges(), []netip.Prefix{prefix("172.16.0.0/12"), prefix("192.168.0.0/16")}, ""},
		"the end of all addresses":      {[]Range{{prefix("255.255.0.0/16"), 24}}, []netip.Prefix{prefix("255.255.0.0/16")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(tc.pools, prefix(tc.want).Addr().Is6(), tc.used)
			if tc.want == "" {
				if !errs.Is(err, errs.Invalid) {
					t.Fatalf("got %s, %v", got, err)
				}
				return
			}
			if err != nil || got != prefix(tc.want) {
				t.Fatalf("got %s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func TestAddressesOfALargeSubnet(t *testing.T) {
	p, err := New(Config{Subnet: prefix("fd00::/64"), Aux: map[string]netip.Addr{"x": addr("fd00::2")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fd00::3", "fd00::4"} {
		if a, err := p.Next(); err != nil || a != addr(want) {
			t.Fatalf("got %s, %v; want %s", a, err, want)
		}
	}
	if err := p.Take(addr("fd00::ffff:ffff:ffff:ffff")); err != nil {
		t.Errorf("the last address is one as others: %v", err)
	}
	if used, free := p.Used(); used != 6 || free != 1<<64-1-6 {
		t.Errorf("used %d, free %d", used, free)
	}
}

func TestSet(t *testing.T) {
	var s Set
	for _, p := range []string{"10.1.0.0/30", "10.2.0.0/24"} {
		pool, err := New(Config{Subnet: prefix(p)})
		if err != nil {
			t.Fatal(err)
		}
		s = append(s, pool)
	}
	for _, want := range []string{"10.1.0.2/30", "10.2.0.2/24"} { // the first has one
		if got, err := s.Next(); err != nil || got != prefix(want) {
			t.Fatalf("got %s, %v; want %s", got, err, want)
		}
	}
	if got, err := s.Take(addr("10.2.0.9")); err != nil || got != prefix("10.2.0.9/24") {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := s.Take(addr("10.2.0.9")); !errs.Is(err, errs.Denied) {
		t.Errorf("taken twice: %v", err)
	}
	if _, err := s.Take(addr("10.3.0.9")); !errs.Is(err, errs.Invalid) {
		t.Errorf("a foreign one: %v", err)
	}
	s.Release(addr("10.2.0.9"))
	s.Release(addr("10.3.0.9"))
	if _, err := s.Take(addr("10.2.0.9")); err != nil {
		t.Errorf("not given back: %v", err)
	}
	if gw := s.Gateway(addr("10.2.0.9")); gw != addr("10.2.0.1") {
		t.Errorf("its gateway is %s", gw)
	}
}
