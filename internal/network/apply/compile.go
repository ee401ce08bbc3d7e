package apply

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/network/rules"
)

func datatype(family nftables.TableFamily, types []rules.Type) (nftables.SetDatatype, error) {
	var out []nftables.SetDatatype
	for _, t := range types {
		switch t {
		case rules.TypeAddr:
			if family == nftables.TableFamilyIPv6 {
				out = append(out, nftables.TypeIP6Addr)
			} else {
				out = append(out, nftables.TypeIPAddr)
			}
		case rules.TypeProto:
			out = append(out, nftables.TypeInetProto)
		case rules.TypePort:
			out = append(out, nftables.TypeInetService)
		case rules.TypeIfname:
			out = append(out, nftables.TypeIFName)
		default:
			return nftables.SetDatatype{}, fmt.Errorf("no such type: %d", t)
		}
	}
	if len(out) == 1 {
		return out[0], nil
	}
	return nftables.ConcatSetType(out...)
}

func kernelSet(t *nftables.Table, s rules.Set) (*nftables.Set, error) {
	ns := &nftables.Set{Table: t, Name: s.Name, IsMap: len(s.Data) > 0, Concatenation: len(s.Key) > 1}
	var err error
	if ns.KeyType, err = datatype(t.Family, s.Key); err != nil {
		return nil, fmt.Errorf("set %s: %w", s.Name, err)
	}
	if len(s.Key) == 1 && s.Key[0] == rules.TypeIfname {
		ns.KeyByteOrder = binaryutil.NativeEndian // only told to nft, for listing
	}
	if ns.IsMap {
		if ns.DataType, err = datatype(t.Family, s.Data); err != nil {
			return nil, fmt.Errorf("map %s: %w", s.Name, err)
		}
	}
	return ns, nil
}

func elements(es []rules.Element) []nftables.SetElement {
	out := make([]nftables.SetElement, len(es))
	for i, e := range es {
		out[i] = nftables.SetElement{Key: concat(e.Key), Val: concat(e.Data)}
	}
	return out
}

// concat lays fields out as registers hold them: each padded to 4 bytes, if
// there is more than one.
func concat(vs []rules.Value) []byte {
	var out []byte
	for _, v := range vs {
		out = append(out, v.Data...)
		for len(vs) > 1 && len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

func kernelChain(t *nftables.Table, c rules.Chain) (*nftables.Chain, error) {
	kc := &nftables.Chain{Name: c.Name, Table: t}
	if c.Base == nil {
		return kc, nil
	}
	switch c.Base.Hook {
	case "prerouting":
		kc.Hooknum = nftables.ChainHookPrerouting
	case "forward":
		kc.Hooknum = nftables.ChainHookForward
	case "output":
		kc.Hooknum = nftables.ChainHookOutput
	case "postrouting":
		kc.Hooknum = nftables.ChainHookPostrouting
	default:
		return nil, fmt.Errorf("chain %s: no such hook: %s", c.Name, c.Base.Hook)
	}
	kc.Type = nftables.ChainType(c.Base.Type)
	kc.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Base.Priority))
	policy := nftables.ChainPolicyAccept
	kc.Policy = &policy
	return kc, nil
}

// register numbers the i-th 4-byte word, in the way nft itself does: it can then
// list our rules.
func register(word uint32) uint32 {
	if word%4 == 0 {
		return unix.NFT_REG_1 + word/4
	}
	return unix.NFT_REG32_00 + word
}

// load puts the fields side by side in registers, from the first on.
func load(family rules.Family, fields []rules.Field) ([]expr.Any, error) {
	var out []expr.Any
	source, dest, size := uint32(12), uint32(16), uint32(4) // of addresses in the header
	if family == rules.IPv6 {
		source, dest, size = 8, 24, 16
	}
	word := uint32(0)
	for _, f := range fields {
		reg, words := register(word), uint32(1)
		switch f {
		case rules.IIF:
			out, words = append(out, &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg}), 4
		case rules.OIF:
			out, words = append(out, &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg}), 4
		case rules.SAddr:
			out = append(out, &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: size})
			words = size / 4
		case rules.DAddr:
			out = append(out, &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: dest, Len: size})
			words = size / 4
		case rules.L4Proto:
			out = append(out, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg})
		case rules.DPort:
			out = append(out, &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
		default:
			return nil, fmt.Errorf("no such field: %d", f)
		}
		word += words
	}
	return out, nil
}

func compile(f rules.Family, r rules.Rule) ([]expr.Any, error) {
	var out []expr.Any
	for _, m := range r.Match {
		es, err := compileMatch(f, m)
		if err != nil {
			return nil, err
		}
		out = append(out, es...)
	}
	es, err := compileAction(f, r.Do)
	return append(out, es...), err
}

func compileMatch(f rules.Family, m rules.Match) ([]expr.Any, error) {
	switch {
	case m.Established:
		return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), nil
	case m.DNATed:
		return ctBits(expr.CtKeySTATUS, ipsDNAT), nil
	case m.ToLocal:
		return []expr.Any{
			&expr.Fib{Register: unix.NFT_REG_1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
		}, nil
	}
	out, err := load(f, m.Fields)
	if err != nil {
		return nil, err
	}
	op := expr.CmpOpEq
	if m.Not {
		op = expr.CmpOpNeq
	}
	switch {
	case m.Set != "":
		return append(out, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: m.Set, Invert: m.Not}), nil
	case m.Prefix.IsValid():
		mask := net.CIDRMask(m.Prefix.Bits(), m.Prefix.Addr().BitLen())
		return append(out,
			&expr.Bitwise{
				SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: uint32(len(mask)),
				Mask: mask, Xor: make([]byte, len(mask)),
			},
			&expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: m.Prefix.Masked().Addr().AsSlice()}), nil
	}
	return append(out, &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: m.Value.Data}), nil
}

const ipsDNAT = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h

// ctBits passes packets whose connection has any of the bits.
func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: unix.NFT_REG_1, Key: key},
		&expr.Bitwise{
			SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

func compileAction(f rules.Family, a rules.Action) ([]expr.Any, error) {
	switch {
	case a.Jump != "":
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: a.Jump}}, nil
	case a.Masquerade:
		return []expr.Any{&expr.Masq{}}, nil
	case a.DNATMap != "":
		out, err := load(f, a.Fields)
		return append(out,
			&expr.Lookup{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, IsDestRegSet: true, SetName: a.DNATMap},
			dnat(f)), err
	case a.DNAT.IsValid():
		return []expr.Any{
			&expr.Immediate{Register: register(0), Data: a.DNAT.Addr().AsSlice()},
			&expr.Immediate{Register: register(addrWords(f)), Data: binary.BigEndian.AppendUint16(nil, a.DNAT.Port())},
			dnat(f),
		}, nil
	}
	switch a.Verdict {
	case "accept":
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, nil
	case "drop":
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, nil
	case "return":
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}, nil
	}
	return nil, fmt.Errorf("no such verdict: %q", a.Verdict)
}

func addrWords(f rules.Family) uint32 {
	if f == rules.IPv6 {
		return 4
	}
	return 1
}

// dnat takes the address from the first words, and the port from the next.
func dnat(f rules.Family) *expr.NAT {
	family := uint32(unix.NFPROTO_IPV4)
	if f == rules.IPv6 {
		family = unix.NFPROTO_IPV6
	}
	return &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: family,
		RegAddrMin: register(0), RegProtoMin: register(addrWords(f)), Specified: true,
	}
}
