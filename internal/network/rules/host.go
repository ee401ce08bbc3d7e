package rules

import (
	"cmp"
	"net/netip"
	"slices"
)

// Host is what the host's tables depend on.
type Host struct {
	Table    string
	Networks []Network
	Ports    []Port
	// OnlyOurs drops what is forwarded between other interfaces: for a host
	// that did not forward until we made it.
	OnlyOurs, OnlyOurs6 bool
	// Direct lets everybody reach published ports by the containers' addresses.
	Direct bool
}

// Network is one bridge.
type Network struct {
	Bridge   string
	Internal bool // containers do not leave
	ICC      bool // containers may talk to each other
	V4, V6   Subnet
	// Trusted interfaces may reach published ports by the containers' addresses.
	Trusted []string
}

// Subnet is what one family of a network has; a bridge without a prefix leads
// nowhere in that family.
type Subnet struct {
	Prefix     netip.Prefix
	Masquerade bool // containers leave with the host's address
	Routed     bool // others reach them by their own addresses, at published ports
	Open       bool // and at all others
}

func (n Network) of(f Family) Subnet {
	if f == IPv6 {
		return n.V6
	}
	return n.V4
}

// Port is one published port.
type Port struct {
	Host  netip.AddrPort // an unspecified address: any of the host's; invalid: a port that is only let through
	Proto string         // tcp, udp, sctp
	To    netip.AddrPort
}

// Family is the port's table.
func (p Port) Family() Family {
	if p.To.Addr().Is6() {
		return IPv6
	}
	return IPv4
}

// Names of the sets that change while the table stands.
const (
	SetPorts    = "ports"     // published on one address
	SetPortsAny = "ports_any" // published on every address of the host
	SetDirect   = "direct"    // reached by the container's own address
)

func match(f Field, v Value) Match     { return Match{Fields: []Field{f}, Value: v} }
func in(set string, fs ...Field) Match { return Match{Fields: fs, Set: set} }
func within(f Field, p string) Match {
	return Match{Fields: []Field{f}, Prefix: netip.MustParsePrefix(p)}
}
func not(m Match) Match                  { m.Not = true; return m }
func rule(do Action, ms ...Match) Rule   { return Rule{Match: ms, Do: do} }
func verdict(v string, ms ...Match) Rule { return rule(Action{Verdict: v}, ms...) }

// Build renders the host's table of a family.
func (h Host) Build(f Family) Table {
	h.Networks = slices.SortedFunc(slices.Values(h.Networks), func(a, b Network) int {
		return cmp.Compare(a.Bridge, b.Bridge)
	})
	t := Table{Name: h.Table, Family: f, Sets: append(h.interfaceSets(f), h.portSets(f)...)}
	local := []Match{{ToLocal: true}}
	before, own := []Rule{verdict("return", within(DAddr, "127.0.0.0/8"))}, []Rule(nil)
	if f == IPv6 {
		// An answer from, or to, an address that is valid on one link only cannot
		// be forwarded: those, and loopback, are served by the sockets that
		// reserve the ports.
		linkLocal := verdict("return", within(DAddr, "fe80::/10"))
		before = []Rule{linkLocal, verdict("return", within(SAddr, "fe80::/10"))}
		own = []Rule{linkLocal, verdict("return", match(DAddr, Addr(netip.IPv6Loopback())))}
	} else {
		t.Chains = append(t.Chains, antiSpoof())
	}
	// What claims to be for 127.0.0.0/8 and comes by wire is a neighbour's try to
	// reach a port published on loopback: it is not translated, and the kernel
	// then drops it. It drops what claims to be for ::1 before.
	t.Chains = append(t.Chains,
		Chain{
			Name: "prerouting", Base: &Base{"nat", "prerouting", PriorityDstNAT},
			Rules: append(before, rule(Action{Jump: "publish"}, local...)),
		},
		Chain{
			Name: "output", Base: &Base{"nat", "output", PriorityDstNAT},
			Rules: append(own, rule(Action{Jump: "publish"}, local...)),
		},
		publish(), h.forward(f), h.postrouting(f))
	return t
}

// some reports whether the family of any network is so: rules for what nobody
// asked for are left out.
func (h Host) some(f Family, is func(Network, Subnet) bool) bool {
	return slices.ContainsFunc(h.Networks, func(n Network) bool { return is(n, n.of(f)) })
}

func routed(_ Network, s Subnet) bool  { return s.Routed }
func opened(_ Network, s Subnet) bool  { return s.Open }
func trusts(n Network, _ Subnet) bool  { return len(n.Trusted) > 0 }
func direct(n Network, s Subnet) bool  { return routed(n, s) || trusts(n, s) }
func (n Network) closed(f Family) bool { return n.Internal || !n.of(f).Prefix.IsValid() }

// interfaceSets say which bridges are ours and what they may.
func (h Host) interfaceSets(f Family) []Set {
	one, two := []Type{TypeIfname}, []Type{TypeIfname, TypeIfname}
	bridges, inside, internal := Set{Name: "bridges", Key: one}, Set{Name: "inside", Key: two}, Set{Name: "internal", Key: one}
	routes, opens, trusted := Set{Name: "routed", Key: one}, Set{Name: "open", Key: one}, Set{Name: "trusted", Key: two}
	add := func(s *Set, names ...string) {
		e := Element{}
		for _, n := range names {
			e.Key = append(e.Key, Ifname(n))
		}
		s.Elements = append(s.Elements, e)
	}
	for _, n := range h.Networks {
		add(&bridges, n.Bridge)
		if n.ICC {
			add(&inside, n.Bridge, n.Bridge)
		}
		if n.closed(f) {
			add(&internal, n.Bridge)
		}
		if n.of(f).Routed {
			add(&routes, n.Bridge)
		}
		if n.of(f).Open {
			add(&opens, n.Bridge)
		}
		for _, i := range n.Trusted {
			add(&trusted, i, n.Bridge)
		}
	}
	out := []Set{bridges, inside, internal}
	for _, s := range []Set{routes, opens, trusted} {
		if len(s.Elements) > 0 {
			out = append(out, s)
		}
	}
	return out
}

func (h Host) portSets(f Family) []Set {
	sets := []Set{
		{Name: SetPorts, Key: []Type{TypeAddr, TypeProto, TypePort}, Data: []Type{TypeAddr, TypePort}},
		{Name: SetPortsAny, Key: []Type{TypeProto, TypePort}, Data: []Type{TypeAddr, TypePort}},
	}
	if h.Direct || h.some(f, direct) {
		sets = append(sets, Set{Name: SetDirect, Key: []Type{TypeAddr, TypeProto, TypePort}})
	}
	ports := slices.SortedFunc(slices.Values(h.Ports), func(a, b Port) int {
		return cmp.Or(a.Host.Compare(b.Host), cmp.Compare(a.Proto, b.Proto), a.To.Compare(b.To))
	})
	for _, p := range ports {
		name, e := p.Element()
		i := slices.IndexFunc(sets, func(s Set) bool { return s.Name == name })
		if p.Family() == f && i >= 0 {
			sets[i].Elements = append(sets[i].Elements, e)
		}
	}
	return sets
}

// Element is the element that publishes the port, and its map's name.
func (p Port) Element() (set string, e Element) {
	to := []Value{Addr(p.To.Addr()), Proto(p.Proto), PortNum(p.To.Port())}
	if !p.Host.IsValid() {
		return SetDirect, Element{Key: to}
	}
	e.Data = []Value{to[0], to[2]}
	e.Key = []Value{to[1], PortNum(p.Host.Port())}
	if p.Host.Addr().IsUnspecified() {
		return SetPortsAny, e
	}
	e.Key = append([]Value{Addr(p.Host.Addr())}, e.Key...)
	return SetPorts, e
}

// antiSpoof keeps containers from the host's loopback services. Bridges route
// 127.0.0.0/8 (so that ports published on it answer): without these rules a
// container could send to, or pretend to be, the host's 127.0.0.1. The kernel
// never takes ::1 from a wire.
func antiSpoof() Chain {
	return Chain{
		Name: "raw_prerouting",
		Base: &Base{"filter", "prerouting", PriorityRaw},
		Rules: []Rule{
			verdict("drop", in("bridges", IIF), within(DAddr, "127.0.0.0/8")),
			verdict("drop", in("bridges", IIF), within(SAddr, "127.0.0.0/8")),
		},
	}
}

func publish() Chain {
	return Chain{
		Name: "publish",
		Rules: []Rule{
			rule(Action{DNATMap: SetPorts, Fields: []Field{DAddr, L4Proto, DPort}}),
			rule(Action{DNATMap: SetPortsAny, Fields: []Field{L4Proto, DPort}}),
		},
	}
}

// forward isolates networks from each other and from outside: into a bridge
// come only answers, neighbours on the same bridge, and published ports.
func (h Host) forward(f Family) Chain {
	c := Chain{
		Name: "forward",
		Base: &Base{"filter", "forward", PriorityFilter},
		Rules: []Rule{
			verdict("accept", Match{Established: true}),
			verdict("accept", in("inside", IIF, OIF)),
			verdict("drop", in("internal", IIF)),
			verdict("drop", in("internal", OIF)),
			verdict("accept", in("bridges", OIF), Match{DNATed: true}),
		},
	}
	published := in(SetDirect, DAddr, L4Proto, DPort)
	if h.Direct {
		c.Rules = append(c.Rules, verdict("accept", in("bridges", OIF), published))
	}
	if h.some(f, routed) {
		c.Rules = append(c.Rules,
			verdict("accept", in("routed", OIF), published),
			verdict("accept", in("routed", OIF), match(L4Proto, icmp(f))))
	}
	if h.some(f, trusts) {
		c.Rules = append(c.Rules, verdict("accept", in("trusted", IIF, OIF), published))
	}
	if h.some(f, opened) {
		c.Rules = append(c.Rules, verdict("accept", in("open", OIF)))
	}
	c.Rules = append(c.Rules,
		verdict("drop", in("bridges", OIF)),
		verdict("accept", in("bridges", IIF)))
	if h.OnlyOurs && f == IPv4 || h.OnlyOurs6 && f == IPv6 {
		c.Rules = append(c.Rules, verdict("drop"))
	}
	return c
}

// postrouting gives packets an address whose answers come back to this host.
func (h Host) postrouting(f Family) Chain {
	c := Chain{Name: "postrouting", Base: &Base{"nat", "postrouting", PrioritySrcNAT}}
	if f == IPv4 { // the host's own, to a port published on loopback
		c.Rules = append(c.Rules, rule(Action{Masquerade: true}, in("bridges", OIF), within(SAddr, "127.0.0.0/8")))
	}
	for _, n := range h.Networks {
		if n.closed(f) {
			continue
		}
		s := n.of(f)
		from := Match{Fields: []Field{SAddr}, Prefix: s.Prefix.Masked()}
		out := match(OIF, Ifname(n.Bridge))
		if !s.Routed {
			// A published port of a neighbour (or one's own), through the host's
			// address: the answer must not take the short way over the bridge.
			c.Rules = append(c.Rules, rule(Action{Masquerade: true}, from, out, Match{DNATed: true}))
		}
		if s.Masquerade {
			c.Rules = append(c.Rules, rule(Action{Masquerade: true}, from, not(out)))
		}
	}
	return c
}
