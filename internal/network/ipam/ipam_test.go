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
		"an IPv6 subnet":                   {c: Config{Subnet: prefix("fd00::/64")}, bad: true},
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
		"the first in use":              {DefaultRanges(), []netip.Prefix{prefix("172.17.0.0/16")}, "172.18.0.0/16"},
		"a part of the first in use":    {DefaultRanges(), []netip.Prefix{prefix("172.17.200.0/24")}, "172.18.0.0/16"},
		"a whole block in use":          {DefaultRanges(), []netip.Prefix{prefix("172.16.0.0/12")}, "192.168.0.0/20"},
		"slices of the last":            {small[1:], []netip.Prefix{prefix("192.168.1.0/24"), prefix("192.168.16.0/20")}, "192.168.32.0/20"},
		"a pool in a larger one in use": {small, []netip.Prefix{prefix("10.0.0.0/9"), prefix("10.128.0.1/32")}, "10.129.0.0/16"},
		"everything in use":             {DefaultRanges(), []netip.Prefix{prefix("172.16.0.0/12"), prefix("192.168.0.0/16")}, ""},
		"the end of all addresses":      {[]Range{{prefix("255.255.0.0/16"), 24}}, []netip.Prefix{prefix("255.255.0.0/16")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(tc.pools, tc.used)
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
