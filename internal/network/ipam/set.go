package ipam

import (
	"net/netip"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Set is the subnets of one family of a network: addresses that are not asked
// for come from the first that has one left.
type Set []*Pool

// Next takes a free address.
func (s Set) Next() (netip.Prefix, error) {
	var last error
	for _, p := range s {
		a, err := p.Next()
		if err == nil {
			return netip.PrefixFrom(a, p.subnet.Bits()), nil
		}
		last = err
	}
	return netip.Prefix{}, last
}

// Take takes one address of whichever subnet has it.
func (s Set) Take(a netip.Addr) (netip.Prefix, error) {
	p := s.of(a)
	if p == nil {
		return netip.Prefix{}, errs.Newf(errs.Invalid, "no configured subnet contains IP address %s", a)
	}
	return netip.PrefixFrom(a, p.subnet.Bits()), p.Take(a)
}

// Release gives an address back.
func (s Set) Release(a netip.Addr) {
	if p := s.of(a); p != nil {
		p.Release(a)
	}
}

// Gateway is the gateway of the subnet that has the address; zero if none has.
func (s Set) Gateway(a netip.Addr) netip.Addr {
	if p := s.of(a); p != nil {
		return p.gateway
	}
	return netip.Addr{}
}

func (s Set) of(a netip.Addr) *Pool {
	for _, p := range s {
		if p.subnet.Contains(a) {
			return p
		}
	}
	return nil
}
