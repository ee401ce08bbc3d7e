package rules

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// Type is the type of one field of a set's key or data.
type Type uint8

// The types used here.
const (
	TypeAddr   Type = iota + 1 // ipv4_addr, ipv6_addr
	TypeProto                  // inet_proto
	TypePort                   // inet_service
	TypeIfname                 // ifname
)

func (t Type) in(f Family) string {
	switch t {
	case TypeAddr:
		if f == IPv6 {
			return "ipv6_addr"
		}
		return "ipv4_addr"
	case TypeProto:
		return "inet_proto"
	case TypePort:
		return "inet_service"
	case TypeIfname:
		return "ifname"
	}
	return "invalid"
}

// Value is one field of a set's element, or what a field is compared with.
type Value struct {
	Text string // as nft writes it
	Data []byte // as the kernel compares it, unpadded
}

// Addr is an address of the table's family.
func Addr(a netip.Addr) Value { return Value{a.String(), a.AsSlice()} }

// Protocol numbers of the transport protocols that have ports here.
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// icmp is the protocol by which routers and hosts tell each other of errors.
func icmp(f Family) Value {
	if f == IPv6 {
		return Value{"icmpv6", []byte{58}}
	}
	return Value{"icmp", []byte{1}}
}

// Proto is "tcp", "udp" or "sctp".
func Proto(name string) Value {
	switch name {
	case "udp":
		return Value{name, []byte{protoUDP}}
	case "sctp":
		return Value{name, []byte{protoSCTP}}
	}
	return Value{"tcp", []byte{protoTCP}}
}

// PortNum is a port.
func PortNum(p uint16) Value {
	return Value{strconv.Itoa(int(p)), binary.BigEndian.AppendUint16(nil, p)}
}

// Ifname is an interface's whole name.
func Ifname(name string) Value {
	b := make([]byte, 16)
	copy(b, name)
	return Value{strconv.Quote(name), b}
}

func join(vs []Value) string {
	texts := make([]string, len(vs))
	for i, v := range vs {
		texts[i] = v.Text
	}
	return strings.Join(texts, " . ")
}
