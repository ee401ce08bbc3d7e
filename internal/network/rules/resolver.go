package rules

import "net/netip"

// Resolver renders the table inside a container's namespace that leads what is
// sent to port 53 of addr to where the resolver really listens, so that the
// container itself may listen on 0.0.0.0:53.
func Resolver(table string, addr netip.Addr, udp, tcp uint16) Table {
	to := func(proto string, port uint16) Rule {
		return rule(Action{DNAT: netip.AddrPortFrom(addr, port)},
			match(DAddr, Addr(addr)), match(L4Proto, Proto(proto)), match(DPort, PortNum(53)))
	}
	return Table{
		Name: table,
		Chains: []Chain{{
			Name:  "output",
			Base:  &Base{"nat", "output", PriorityDstNAT},
			Rules: []Rule{to("udp", udp), to("tcp", tcp)},
		}},
	}
}
