package rules

import (
	"cmp"
	"net/netip"
	"slices"
)

// Host is what the host's table depends on.
type Host struct {
	Table    string
	Networks []Network
	Ports    []Port
	// OnlyOurs drops what is forwarded between other interfaces: for a host
	// that did not forward until we made it.
	OnlyOurs bool
}

// Network is one bridge.
type Network struct {
	Bridge     string
	Subnet     netip.Prefix
	ICC        bool // containers may talk to each other
	Masquerade bool // they leave with the host's address
	Internal   bool // they do not leave
}

// Port is one published port.
type Port struct {
	Host  netip.AddrPort // an unspecified address: any of the host's
	Proto string         // tcp, udp
	To    netip.AddrPort
}

// Names of the sets that change while the table stands.
const (
	SetPorts    = "ports"     // published on one address
	SetPortsAny = "ports_any" // published on every address of the host
)

func match(f Field, v Value) Match     { return Match{Fields: []Field{f}, Value: v} }
func in(set string, fs ...Field) Match { return Match{Fields: fs, Set: set} }
func within(f Field, p string) Match {
	return Match{Fields: []Field{f}, Prefix: netip.MustParsePrefix(p)}
}
func not(m Match) Match                  { m.Not = true; return m }
func rule(do Action, ms ...Match) Rule   { return Rule{Match: ms, Do: do} }
func verdict(v string, ms ...Match) Rule { return rule(Action{Verdict: v}, ms...) }

// Build renders the host's table.
func (h Host) Build() Table {
	h.Networks = slices.SortedFunc(slices.Values(h.Networks), func(a, b Network) int {
		return cmp.Compare(a.Bridge, b.Bridge)
	})
	return Table{
		Name: h.Table,
		Sets: append(h.interfaceSets(), h.portSets()...),
		Chains: []Chain{
			antiSpoof(),
			prerouting(),
			{
				Name:  "output",
				Base:  &Base{"nat", "output", PriorityDstNAT},
				Rules: []Rule{rule(Action{Jump: "publish"}, Match{ToLocal: true})},
			},
			publish(),
			h.forward(),
			h.postrouting(),
		},
	}
}

// interfaceSets say which bridges are ours and what they may.
func (h Host) interfaceSets() []Set {
	bridges := Set{Name: "bridges", Key: []Type{TypeIfname}}
	inside := Set{Name: "inside", Key: []Type{TypeIfname, TypeIfname}}
	internal := Set{Name: "internal", Key: []Type{TypeIfname}}
	for _, n := range h.Networks {
		name := Ifname(n.Bridge)
		bridges.Elements = append(bridges.Elements, Element{Key: []Value{name}})
		if n.ICC {
			inside.Elements = append(inside.Elements, Element{Key: []Value{name, name}})
		}
		if n.Internal {
			internal.Elements = append(internal.Elements, Element{Key: []Value{name}})
		}
	}
	return []Set{bridges, inside, internal}
}

func (h Host) portSets() []Set {
	sets := []Set{
		{Name: SetPorts, Key: []Type{TypeAddr, TypeProto, TypePort}, Data: []Type{TypeAddr, TypePort}},
		{Name: SetPortsAny, Key: []Type{TypeProto, TypePort}, Data: []Type{TypeAddr, TypePort}},
	}
	ports := slices.SortedFunc(slices.Values(h.Ports), func(a, b Port) int {
		return cmp.Or(a.Host.Compare(b.Host), cmp.Compare(a.Proto, b.Proto))
	})
	for _, p := range ports {
		name, e := p.Element()
		i := slices.IndexFunc(sets, func(s Set) bool { return s.Name == name })
		sets[i].Elements = append(sets[i].Elements, e)
	}
	return sets
}

// Element is the map element that publishes the port, and the map's name.
func (p Port) Element() (set string, e Element) {
	e.Data = []Value{Addr(p.To.Addr()), PortNum(p.To.Port())}
	e.Key = []Value{Proto(p.Proto), PortNum(p.Host.Port())}
	if p.Host.Addr().IsUnspecified() {
		return SetPortsAny, e
	}
	e.Key = append([]Value{Addr(p.Host.Addr())}, e.Key...)
	return SetPorts, e
}

// antiSpoof keeps containers from the host's loopback services. Bridges route
// 127.0.0.0/8 (so that ports published on it answer): without these rules a
// container could send to, or pretend to be, the host's 127.0.0.1.
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

// prerouting publishes ports to others. What claims to be for 127.0.0.0/8 and
// comes by wire is a neighbour's try to reach a port published on loopback: it
// is not translated, and the kernel then drops it.
func prerouting() Chain {
	return Chain{
		Name: "prerouting",
		Base: &Base{"nat", "prerouting", PriorityDstNAT},
		Rules: []Rule{
			verdict("return", within(DAddr, "127.0.0.0/8")),
			rule(Action{Jump: "publish"}, Match{ToLocal: true}),
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
func (h Host) forward() Chain {
	c := Chain{
		Name: "forward",
		Base: &Base{"filter", "forward", PriorityFilter},
		Rules: []Rule{
			verdict("accept", Match{Established: true}),
			verdict("accept", in("inside", IIF, OIF)),
			verdict("drop", in("internal", IIF)),
			verdict("drop", in("internal", OIF)),
			verdict("accept", in("bridges", OIF), Match{DNATed: true}),
			verdict("drop", in("bridges", OIF)),
			verdict("accept", in("bridges", IIF)),
		},
	}
	if h.OnlyOurs {
		c.Rules = append(c.Rules, verdict("drop"))
	}
	return c
}

// postrouting gives packets an address whose answers come back to this host.
func (h Host) postrouting() Chain {
	c := Chain{
		Name: "postrouting",
		Base: &Base{"nat", "postrouting", PrioritySrcNAT},
		// The host's own, to a port published on loopback.
		Rules: []Rule{rule(Action{Masquerade: true}, in("bridges", OIF), within(SAddr, "127.0.0.0/8"))},
	}
	for _, n := range h.Networks {
		from := Match{Fields: []Field{SAddr}, Prefix: n.Subnet.Masked()}
		out := match(OIF, Ifname(n.Bridge))
		if !n.Internal {
			// A published port of a neighbour (or one's own), through the host's
			// address: the answer must not take the short way over the bridge.
			c.Rules = append(c.Rules, rule(Action{Masquerade: true}, from, out, Match{DNATed: true}))
		}
		if n.Masquerade && !n.Internal {
			c.Rules = append(c.Rules, rule(Action{Masquerade: true}, from, not(out)))
		}
	}
	return c
}
