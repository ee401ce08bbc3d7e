// Package ipam hands out the addresses of one subnet. It is pure: no I/O, no
// lock of its own.
package ipam

import (
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
}

// reserved are "this network", loopback and multicast.
var reserved = [...]string{"0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4"}

// New checks the configuration. Without a gateway it is the first address of
// the range that is nobody's, as in docker.
func New(c Config) (*Pool, error) {
	if !c.Subnet.IsValid() || !c.Subnet.Addr().Is4() {
		return nil, errs.Newf(errs.Invalid, "invalid subnet %s: not an IPv4 subnet", c.Subnet)
	}
	if c.Subnet.Bits() > 30 || c.Subnet.Bits() == 0 {
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
	p.taken[p.subnet.Addr()] = struct{}{}
	p.taken[Last(p.subnet)] = struct{}{}
	for name, a := range c.Aux {
		if !p.subnet.Contains(a) {
			return nil, errs.Newf(errs.Invalid, "invalid auxiliary address %s=%s: no configured subnet contains it", name, a)
		}
		p.taken[a] = struct{}{}
	}
	p.gateway = c.Gateway
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

// Gateway is the address of the bridge.
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
	return netip.Addr{}, errs.New(errs.Unavailable, "no available IPv4 addresses on this network's address pools")
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

func size(p netip.Prefix) uint64 { return 1 << (p.Addr().BitLen() - p.Bits()) }

// Last is the last address of an IPv4 prefix: its broadcast address.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// Choose cuts the first subnet from the pools that overlaps nothing in use.
func Choose(pools []Range, used []netip.Prefix) (netip.Prefix, error) {
	for _, r := range pools {
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

// DefaultRanges are docker's address pools.
func DefaultRanges() []Range {
	rs := make([]Range, 0, 16)
	for i := byte(17); i < 32; i++ {
		rs = append(rs, Range{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i, 0, 0}), 16), 16})
	}
	return append(rs, Range{netip.MustParsePrefix("192.168.0.0/16"), 20})
}
