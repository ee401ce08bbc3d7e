// Package ipam hands out the addresses of subnets. It is pure: no I/O, no lock of
// its own.
package ipam

import (
	"crypto/sha256"
	"math"
	"net/netip"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Pool is a subnet with its taken addresses.
type Pool struct {
	subnet  netip.Prefix
	within  netip.Prefix // addresses not asked for by name come from here
	gateway netip.Addr
	taken   map[netip.Addr]struct{}
	next    netip.Addr // no address of within before it is free
}

// Config describes a pool; only Subnet is required.
type Config struct {
	Subnet  netip.Prefix
	Range   netip.Prefix
	Gateway netip.Addr
	Aux     map[string]netip.Addr // never handed out
	Without bool                  // a gateway: none is chosen
}

// reserved are "this network", loopback and multicast; of IPv6 the unspecified
// address and loopback, IPv4 in disguise, what is valid on one link only, and
// multicast.
var reserved = [...]string{
	"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4",
	"::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8",
}

// New checks the configuration. Without a gateway it is the first address of
// the range that is nobody's, as in docker.
func New(c Config) (*Pool, error) {
	if !c.Subnet.IsValid() {
		return nil, errs.Newf(errs.Invalid, "invalid subnet %s", c.Subnet)
	}
	if c.Subnet.Bits() > c.Subnet.Addr().BitLen()-2 || c.Subnet.Bits() == 0 {
		return nil, errs.Newf(errs.Invalid, "invalid subnet %s: no room for a gateway and a container", c.Subnet)
	}
	// A bridge with such an address would take the host's own traffic.
	for _, r := range reserved {
		if c.Subnet.Overlaps(netip.MustParsePrefix(r)) {
			return nil, errs.Newf(errs.Invalid, "invalid subnet %s: it is part of %s, which no network may have", c.Subnet, r)
		}
	}
	p := &Pool{subnet: c.Subnet.Masked(), within: c.Subnet.Masked(), taken: map[netip.Addr]struct{}{}}
	if c.Range.IsValid() {
		if c.Range.Bits() < p.subnet.Bits() || !p.subnet.Contains(c.Range.Addr()) {
			return nil, errs.Newf(errs.Invalid, "invalid ip-range %s: it is not within subnet %s", c.Range, p.subnet)
		}
		p.within = c.Range.Masked()
	}
	p.next = p.within.Addr()
	p.taken[p.subnet.Addr()] = struct{}{} // of IPv6: any router's
	if p.subnet.Addr().Is4() {
		p.taken[Last(p.subnet)] = struct{}{}
	}
	for name, a := range c.Aux {
		if !p.subnet.Contains(a) {
			return nil, errs.Newf(errs.Invalid, "invalid auxiliary address %s=%s: no configured subnet contains it", name, a)
		}
		p.taken[a] = struct{}{}
	}
	p.gateway = c.Gateway
	if !p.gateway.IsValid() && c.Without {
		return p, nil
	}
	if !p.gateway.IsValid() {
		gw, err := p.Next()
		if err != nil {
			return nil, err
		}
		p.gateway = gw
		return p, nil
	}
	if !p.subnet.Contains(p.gateway) {
		return nil, errs.Newf(errs.Invalid, "invalid gateway %s: no configured subnet contains it", p.gateway)
	}
	if err := p.Take(p.gateway); err != nil {
		return nil, errs.Newf(errs.Invalid, "invalid gateway %s: %w", p.gateway, err)
	}
	return p, nil
}

// Subnet is the pool's subnet.
func (p *Pool) Subnet() netip.Prefix { return p.subnet }

// Gateway is the address of the bridge, or of another router; zero: none.
func (p *Pool) Gateway() netip.Addr { return p.gateway }

// Next takes the lowest free address of the range.
func (p *Pool) Next() (netip.Addr, error) {
	for a := p.next; p.within.Contains(a); a = a.Next() {
		if _, ok := p.taken[a]; !ok {
			p.taken[a] = struct{}{}
			p.next = a.Next()
			return a, nil
		}
	}
	p.next = Last(p.within).Next()
	return netip.Addr{}, errs.Newf(errs.Unavailable, "no available %s addresses on this network's address pools", family(p.subnet.Addr()))
}

// Take takes one address.
func (p *Pool) Take(a netip.Addr) error {
	if !p.subnet.Contains(a) {
		return errs.Newf(errs.Invalid, "no configured subnet contains IP address %s", a)
	}
	if _, ok := p.taken[a]; ok {
		return errs.New(errs.Denied, "Address already in use")
	}
	p.taken[a] = struct{}{}
	return nil
}

// Release gives an address back; one that is free already is no error. The
// gateway, the subnet's ends and auxiliary addresses must not be released.
func (p *Pool) Release(a netip.Addr) {
	delete(p.taken, a)
	if p.within.Contains(a) && (!p.within.Contains(p.next) || a.Less(p.next)) {
		p.next = a
	}
}

// Used tells how many addresses are taken, the subnet's ends and the gateway
// included, and how many [Pool.Next] could still hand out.
func (p *Pool) Used() (used, free uint64) {
	free = size(p.within)
	for a := range p.taken {
		if p.within.Contains(a) {
			free--
		}
	}
	return uint64(len(p.taken)), free
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// size is how many addresses a prefix has, as far as 64 bits can count.
func size(p netip.Prefix) uint64 {
	bits := p.Addr().BitLen() - p.Bits()
	if bits >= 64 {
		return math.MaxUint64
	}
	return 1 << bits
}

// Last is the last address of a prefix: of IPv4 its broadcast address.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Choose cuts the first subnet from the pools of a family that overlaps nothing
// in use.
func Choose(pools []Range, v6 bool, used []netip.Prefix) (netip.Prefix, error) {
	for _, r := range pools {
		if r.Base.Addr().Is6() != v6 {
			continue
		}
		for s := netip.PrefixFrom(r.Base.Masked().Addr(), r.Size); r.Base.Contains(s.Addr()); {
			over, ok := overlap(s, used)
			if !ok {
				return s, nil
			}
			// Go on behind the larger of both.
			if over.Bits() < s.Bits() {
				s = netip.PrefixFrom(Last(over).Next(), r.Size).Masked()
			} else {
				s = netip.PrefixFrom(Last(s).Next(), r.Size)
			}
			if !s.IsValid() {
				break
			}
		}
	}
	return netip.Prefix{}, errs.New(errs.Invalid, "all predefined address pools have been fully subnetted")
}

// Range is a prefix that subnets of Size bits are cut from.
type Range struct {
	Base netip.Prefix
	Size int
}

func overlap(p netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	for _, u := range used {
		if p.Overlaps(u) {
			return u, true
		}
	}
	return netip.Prefix{}, false
}

// ULA derives a range of unique local addresses from what tells this host from
// others, as docker does: networks that were given no IPv6 subnet are cut from it.
func ULA(seed string) Range {
	sum := sha256.Sum256([]byte(seed))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], sum[3:8])
	return Range{netip.PrefixFrom(netip.AddrFrom16(a), 48), 64}
}

// DefaultRanges are docker's address pools of IPv4.
func DefaultRanges() []Range {
	rs := make([]Range, 0, 16)
	for i := byte(17); i < 32; i++ {
		rs = append(rs, Range{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i, 0, 0}), 16), 16})
	}
	return append(rs, Range{netip.MustParsePrefix("192.168.0.0/16"), 20})
}
