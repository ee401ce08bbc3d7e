// Package rules renders what the firewall must do as a value: an nftables table
// with sets, chains and rules. It is pure: package apply sends the value to the
// kernel, and [Table.String] writes it as nft would, for people and golden
// tests.
//
// The table is Skiff's own; other tables are never touched. An accept here ends
// only our own chain: a firewall that drops forwarded packets (iptables' FORWARD
// policy DROP, firewalld) goes on doing so, and its owner must let the bridges
// through.
package rules

import "net/netip"

// Family is what a table sees: packets of IPv4, or of IPv6.
type Family uint8

// The families. What they have in common has the same names in both.
const (
	IPv4 Family = iota
	IPv6
)

// Table is one nftables table.
type Table struct {
	Name   string
	Family Family
	Sets   []Set
	Chains []Chain
}

// Set is a named set, or a map where Data is not empty.
type Set struct {
	Name     string
	Key      []Type
	Data     []Type
	Elements []Element
}

// Element is one element of a set.
type Element struct{ Key, Data []Value }

// Chain is a chain of rules; Base is nil for one that is only jumped to.
type Chain struct {
	Name  string
	Base  *Base
	Rules []Rule
}

// Base hooks a chain into the path of packets; its policy is accept.
type Base struct {
	Type     string // filter, nat
	Hook     string // prerouting, forward, output, postrouting
	Priority int
}

// The priorities used, as netfilter names them.
const (
	PriorityRaw    = -300
	PriorityDstNAT = -100
	PriorityFilter = 0
	PrioritySrcNAT = 100
)

// Rule does something with packets that pass every match.
type Rule struct {
	Match []Match
	Do    Action
}

// Field is what a match looks at.
type Field uint8

// The fields.
const (
	IIF     Field = iota + 1 // iifname
	OIF                      // oifname
	SAddr                    // ip saddr, ip6 saddr
	DAddr                    // ip daddr, ip6 daddr
	L4Proto                  // meta l4proto
	DPort                    // th dport
)

func (f Field) in(family Family) string {
	switch f {
	case IIF:
		return "iifname"
	case OIF:
		return "oifname"
	case SAddr:
		return family.proto() + " saddr"
	case DAddr:
		return family.proto() + " daddr"
	case L4Proto:
		return "meta l4proto"
	case DPort:
		return "th dport"
	}
	return "invalid"
}

func (f Family) proto() string {
	if f == IPv6 {
		return "ip6"
	}
	return "ip"
}

// Match is one condition: exactly one of the groups is set.
type Match struct {
	Fields []Field // compared with one of:
	Not    bool
	Value  Value        // one field equals it
	Prefix netip.Prefix // one address lies in it
	Set    string       // the fields, concatenated, are in it

	Established bool // ct state established,related
	DNATed      bool // ct status dnat
	ToLocal     bool // fib daddr type local
}

// Action ends a rule: exactly one field is set.
type Action struct {
	Verdict    string // accept, drop, return
	Jump       string // a chain's name
	Masquerade bool
	DNATMap    string  // the map that knows where to, looked up by Fields
	Fields     []Field // of DNATMap
	DNAT       netip.AddrPort
}
