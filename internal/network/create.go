package network

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/network/ipam"
	"github.com/skiff-containers/skiff/internal/network/link"
)

// userSubnet is the mark, in a record's IPAM options, that the subnets of a family
// were asked for: only then may containers ask for addresses. Not shown to clients.
func userSubnet(v6 bool) string {
	if v6 {
		return "skiff.user-subnet6"
	}
	return "skiff.user-subnet"
}

// optNoOptions marks there that the request had no options: inspect tells
// none from an empty set, as docker's does.
const optNoOptions = "skiff.no-options"

// Create makes a user-defined network.
func (m *Manager) Create(ctx context.Context, r *network.CreateRequest) (network.CreateResponse, error) {
	rec, warning, err := m.declared(r)
	if err != nil {
		return network.CreateResponse{}, err
	}
	if rec.Driver == driverMacvlan || rec.Driver == driverIPvlan {
		if err := m.rt.Supports(rec.Driver); err != nil {
			return network.CreateResponse{}, fmt.Errorf("create network %s: %w", r.Name, err)
		}
	}
	var used []netip.Prefix // by others on this host
	for _, c := range rec.IPAM.Config {
		if c.Subnet.Bits() == 0 {
			list, err := routesOf(c.Subnet.Addr().Is6())
			if err != nil {
				return network.CreateResponse{}, err
			}
			used = append(used, list...)
		}
	}
	l, err := m.reserve(rec, used)
	if err != nil {
		return network.CreateResponse{}, err
	}
	var undo cleanup.Stack
	defer undo.Run()
	undo.Push(func() { m.forget(l) })
	undo.Push(func() {
		l.mu.Lock()
		l.state = lanRemoved
		l.mu.Unlock()
		_ = m.fw.setNetworks(m.firewallNetworks())
		_ = m.lower(l)
	})
	if err := m.raise(l); err != nil {
		return network.CreateResponse{}, err
	}
	if err := m.fw.setNetworks(m.firewallNetworks()); err != nil {
		return network.CreateResponse{}, err
	}
	if err := m.o.Table.Put(l.rec.ID, l.rec); err != nil {
		return network.CreateResponse{}, err
	}
	undo.Release()
	m.publish(events.ActionCreate, l, nil)
	return network.CreateResponse{ID: l.rec.ID, Warning: warning}, nil
}

func routesOf(v6 bool) ([]netip.Prefix, error) {
	if v6 {
		return link.Routes6("")
	}
	return link.Routes("")
}

// declared checks the request and makes the record. A subnet that is to be chosen
// is the whole of its family yet.
func (m *Manager) declared(r *network.CreateRequest) (rec Record, warning string, err error) {
	if err := checkRequest(r); err != nil {
		return rec, "", err
	}
	rec = newRecord(r.Name, driverOf(r))
	rec.Internal, rec.Attachable, rec.ConfigOnly = r.Internal, r.Attachable, r.ConfigOnly
	if r.ConfigFrom != nil && r.ConfigFrom.Network != "" {
		rec.ConfigFrom = *r.ConfigFrom
		if r, err = m.configured(r); err != nil {
			return rec, "", err
		}
	} else {
		maps.Copy(rec.Options, m.o.Defaults[rec.Driver])
	}
	maps.Copy(rec.Options, r.Options)
	maps.Copy(rec.Labels, r.Labels)
	if rec.EnableIPv4, err = enabled(r.EnableIPv4, true, rec.Options, optEnableIPv4); err != nil {
		return rec, "", err
	}
	if rec.EnableIPv6, err = enabled(r.EnableIPv6, false, rec.Options, optEnableIPv6); err != nil {
		return rec, "", err
	}
	if !rec.EnableIPv4 && !rec.EnableIPv6 && rec.Driver != driverMacvlan && rec.Driver != driverIPvlan {
		return rec, "", errs.New(errs.Invalid, "IPv4 or IPv6 must be enabled")
	}
	if r.IPAM != nil {
		if err := rec.takeIPAM(r.IPAM); err != nil {
			return rec, "", err
		}
		maps.Copy(rec.IPAM.Options, r.IPAM.Options)
		if err := checkSubnets(r.IPAM.Config, rec.EnableIPv4, rec.EnableIPv6); err != nil {
			return rec, "", err
		}
	}
	for _, v6 := range []bool{false, true} {
		on, whole, name := rec.EnableIPv4, netip.PrefixFrom(netip.IPv4Unspecified(), 0), "IPv4"
		if v6 {
			on, whole, name = rec.EnableIPv6, netip.PrefixFrom(netip.IPv6Unspecified(), 0), "IPv6"
		}
		given := subnetsOf(r.IPAM, v6)
		rec.IPAM.Config = append(rec.IPAM.Config, given...)
		switch {
		case r.ConfigOnly: // checked, and not used
		case on && len(given) == 0:
			rec.IPAM.Config = append(rec.IPAM.Config, network.IPAMConfig{Subnet: whole})
		case on && len(given) > 1 && rec.Driver == driverBridge:
			return rec, "", errs.New(errs.Denied, "bridge driver doesn't support multiple subnets")
		case on:
			rec.IPAM.Options[userSubnet(v6)] = strconv.FormatBool(true)
		case len(given) > 0:
			warning = "subnet " + given[0].Subnet.String() + " is not used: " + name + " is not enabled"
		}
	}
	if r.IPAM == nil || r.IPAM.Options == nil {
		rec.IPAM.Options[optNoOptions] = strconv.FormatBool(true)
	}
	return rec, warning, nil
}

// enabled reads whether a family is: by the request, or else by an option.
func enabled(asked *bool, def bool, options map[string]string, key string) (bool, error) {
	value, ok := options[key]
	switch {
	case asked != nil:
		delete(options, key) // it would only look wrong
		return *asked, nil
	case !ok:
		return def, nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, errs.Newf(errs.Invalid, "driver-opt %q is not a valid bool", key)
	}
	return on, nil
}

func subnetsOf(i *network.IPAM, v6 bool) (out []network.IPAMConfig) {
	if i == nil {
		return nil
	}
	for _, c := range i.Config {
		if c.Subnet.IsValid() && c.Subnet.Addr().Is6() == v6 {
			out = append(out, c)
		}
	}
	return out
}

// networkName allows one letter too, unlike the names of containers.
var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_. -]{0,127}$`)

func checkRequest(r *network.CreateRequest) error {
	switch r.Name {
	case "":
		return errs.New(errs.Invalid, "invalid network name: name is empty")
	case network.NetworkBridge, network.NetworkHost, network.NetworkNone, network.NetworkDefault:
		return errs.Newf(errs.Denied, "operation is not permitted on predefined %s network", r.Name)
	}
	if !networkName.MatchString(r.Name) {
		return errs.Newf(errs.Invalid, "invalid network name: %q: want %s", r.Name, networkName)
	}
	if r.ConfigOnly || r.ConfigFrom != nil && r.ConfigFrom.Network != "" {
		if err := checkConfig(r); err != nil {
			return err
		}
	}
	switch driver := r.Driver; {
	case r.ConfigOnly, driver == "", driver == "default", driver == driverBridge, driver == driverMacvlan, driver == driverIPvlan:
	case driver == driverHost, driver == driverNull:
		return errs.Newf(errs.Denied, "only one instance of \"%s\" network is allowed", r.Driver)
	case driver == "overlay":
		return errs.Newf(errs.Unsupported, "network driver %s is not supported: use bridge", r.Driver)
	default:
		return errs.Newf(errs.NotFound, "could not find plugin %s in v1 plugin registry: plugin not found", r.Driver)
	}
	if r.Ingress || r.Scope != "" && r.Scope != "local" {
		return errs.New(errs.Unsupported, "networks of a swarm are not supported")
	}
	return checkIPAM(r.IPAM)
}

// ipamNull gives no addresses: for networks without any, which are those of no
// family.
const ipamNull = "null"

// takeIPAM notes the driver of addresses.
func (r *Record) takeIPAM(i *network.IPAM) error {
	if i.Driver != ipamNull {
		return nil
	}
	r.IPAM.Driver = ipamNull
	for _, v6 := range []bool{false, true} {
		on, name := r.EnableIPv4, "ipv4"
		if v6 {
			on, name = r.EnableIPv6, "ipv6"
		}
		switch {
		case !on || r.ConfigOnly:
		case len(subnetsOf(i, v6)) > 0:
			return errs.New(errs.Invalid, "null ipam driver does not handle specific address pool requests")
		default:
			return errs.Newf(errs.Invalid, "%s pool is empty", name)
		}
	}
	return nil
}

func checkIPAM(i *network.IPAM) error {
	if i == nil {
		return nil
	}
	if i.Driver != "" && i.Driver != "default" && i.Driver != ipamNull {
		return errs.Newf(errs.Unsupported, "IPAM driver %s is not supported", i.Driver)
	}
	for k := range i.Options {
		return errs.Newf(errs.Unsupported, "IPAM option %s is not supported", k)
	}
	return nil
}

// checkSubnets says all that is wrong with what was given for the families in use.
func checkSubnets(cs []network.IPAMConfig, v4, v6 bool) error {
	var bad []string
	wrong := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	for _, c := range cs {
		p := c.Subnet
		switch {
		case !p.IsValid() && (c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.AuxAddress) > 0):
			wrong("a gateway, an ip-range and auxiliary addresses need a subnet")
			continue
		case !p.IsValid() || p.Addr().Is6() && !v6 || p.Addr().Is4() && !v4:
			continue
		case p.Bits() == 0:
			wrong("invalid subnet %s: it is all there is", p)
		case p != p.Masked():
			wrong("invalid subnet %s: it should be %s", p, p.Masked())
		}
		if r := c.IPRange; r.IsValid() {
			switch {
			case r.Addr().Is6() != p.Addr().Is6():
				wrong("invalid ip-range %s: parent subnet is an %s block", r, familyName(p))
				continue
			case r.Bits() < p.Bits():
				wrong("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, p)
			}
			if r != r.Masked() {
				wrong("invalid ip-range %s: it should be %s", r, r.Masked())
			}
			if !p.Overlaps(r) {
				wrong("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, p)
			}
		}
		address := func(what, who string, a netip.Addr) {
			switch {
			case a.Is6() != p.Addr().Is6():
				wrong("invalid %s %s: parent subnet is an %s block", what, who, familyName(p))
			case !p.Contains(a):
				wrong("invalid %s %s: parent subnet %s doesn't contain this address", what, who, p)
			}
		}
		if c.Gateway.IsValid() {
			address("gateway", c.Gateway.String(), c.Gateway)
		}
		for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
			address("auxiliary address", name, c.AuxAddress[name])
		}
	}
	switch len(bad) {
	case 0:
		return nil
	case 1:
		return errs.Newf(errs.Invalid, "invalid network config:\n%s", bad[0])
	}
	return errs.Newf(errs.Invalid, "invalid network config:\n* %s", strings.Join(bad, "\n* "))
}

func familyName(p netip.Prefix) string {
	if p.Addr().Is6() {
		return "IPv6"
	}
	return "IPv4"
}

// reserve takes name, subnet and interface of a network that does not exist yet.
func (m *Manager) reserve(rec Record, routed []netip.Prefix) (*lan, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var subnets []netip.Prefix
	for _, other := range m.lans {
		if other.rec.Name == rec.Name {
			return nil, errs.Newf(errs.Conflict, "network with name %s already exists", rec.Name)
		}
		subnets = append(append(subnets, other.subnets(false)...), other.subnets(true)...)
	}
	if err := m.configExists(rec); err != nil {
		return nil, err
	}
	for i := range rec.IPAM.Config {
		c := &rec.IPAM.Config[i]
		v6 := c.Subnet.Addr().Is6()
		switch {
		case rec.ConfigOnly: // not taken
			continue
		case v6 && !rec.EnableIPv6 || !v6 && !rec.EnableIPv4:
			continue
		case c.Subnet.Bits() == 0:
			var err error
			if c.Subnet, err = ipam.Choose(m.pools(v6), v6, append(slices.Clone(subnets), routed...)); err != nil {
				return nil, err
			}
		case slices.ContainsFunc(subnets, c.Subnet.Overlaps):
			return nil, errs.New(errs.Denied, "invalid pool request: Pool overlaps with other one on this address space")
		}
		subnets = append(subnets, c.Subnet)
	}
	l, err := m.userLAN(rec)
	if err != nil {
		return nil, err
	}
	for _, other := range m.lans {
		if err := l.clash(other); err != nil {
			return nil, err
		}
	}
	m.lans[rec.ID] = l
	return l, nil
}

// clash says why the network cannot be beside another on its interface.
func (l *lan) clash(other *lan) error {
	switch {
	case l.iface() == "" || l.iface() != other.iface():
		return nil
	case l.vlan != nil && other.vlan != nil:
		return l.vlan.clash(other)
	case l.vlan != nil || other.vlan != nil:
		return nil // a bridge may be a parent
	}
	return errs.Newf(errs.Denied, "conflicts with network %s (%s): networks have same bridge name", other.rec.ID, other.rec.Name)
}

func (m *Manager) forget(l *lan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.lans, l.rec.ID)
}
