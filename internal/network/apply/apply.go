// Package apply sends what package rules rendered to the kernel, by netlink and
// each change in one transaction. It runs no program.
package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/network/rules"
)

// Firewall is a netlink connection to one namespace's nftables; safe for
// concurrent use.
type Firewall struct {
	mu   sync.Mutex // one transaction at a time
	conn *nftables.Conn
}

// Open connects to the nftables of the calling thread's network namespace.
func Open() (*Firewall, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(roomy))
	if err != nil {
		return nil, fmt.Errorf("connect to nftables: %w", err)
	}
	return &Firewall{conn: conn}, nil
}

// Close closes the connection; the rules stay.
func (f *Firewall) Close() error { return f.conn.CloseLasting() }

func table(family rules.Family, name string) *nftables.Table {
	if family == rules.IPv6 {
		return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv6}
	}
	return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
}

// Replace puts the tables in place of what those of their names were, all at
// once.
func (f *Firewall) Replace(ts ...rules.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := uint32(0)
	for _, t := range ts {
		nt := table(t.Family, t.Name)
		f.conn.AddTable(nt) // so that the deletion finds one
		f.conn.DelTable(nt)
		if err := f.add(t, &id); err != nil {
			return err
		}
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("apply table %s: %w", ts[0].Name, err)
	}
	return nil
}

// Add makes a table that is known not to exist.
func (f *Firewall) Add(t rules.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.add(t, new(uint32)); err != nil {
		return err
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("add table %s: %w", t.Name, err)
	}
	return nil
}

func (f *Firewall) add(t rules.Table, id *uint32) error {
	nt := table(t.Family, t.Name)
	f.conn.AddTable(nt)
	for _, s := range t.Sets {
		ns, err := kernelSet(nt, s)
		if err != nil {
			return err
		}
		*id++
		ns.ID = *id // within the transaction; the library's own counter is not guarded
		if err := f.conn.AddSet(ns, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
		for _, es := range chunks(elements(s.Elements)) {
			if err := f.conn.SetAddElements(ns, es); err != nil {
				return fmt.Errorf("set %s: %w", s.Name, err)
			}
		}
	}
	for _, c := range t.Chains { // all of them first: rules jump
		kc, err := kernelChain(nt, c)
		if err != nil {
			return err
		}
		f.conn.AddChain(kc)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			exprs, err := compile(t.Family, r)
			if err != nil {
				return fmt.Errorf("chain %s: %s: %w", c.Name, r.In(t.Family), err)
			}
			f.conn.AddRule(&nftables.Rule{Table: nt, Chain: &nftables.Chain{Name: c.Name, Table: nt}, Exprs: exprs})
		}
	}
	return nil
}

// Delete removes the table; none is no error.
func (f *Firewall) Delete(family rules.Family, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.AddTable(table(family, name))
	f.conn.DelTable(table(family, name))
	return f.conn.Flush()
}

// SetOf names a set of the family's table.
type SetOf struct {
	Family rules.Family
	Set    string
}

// AddElements adds the elements, by their set, all or none.
func (f *Firewall) AddElements(tableName string, bySet map[SetOf][]rules.Element) error {
	return f.change(tableName, bySet, f.conn.SetAddElements)
}

// DeleteElements removes the elements, by their set, all or none.
func (f *Firewall) DeleteElements(tableName string, bySet map[SetOf][]rules.Element) error {
	return f.change(tableName, bySet, f.conn.SetDeleteElements)
}

func (f *Firewall) change(tableName string, bySet map[SetOf][]rules.Element, op func(*nftables.Set, []nftables.SetElement) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for set, es := range bySet {
		if len(es) == 0 {
			continue
		}
		ns := &nftables.Set{Table: table(set.Family, tableName), Name: set.Set, IsMap: len(es[0].Data) > 0}
		for _, part := range chunks(elements(es)) {
			if err := op(ns, part); err != nil {
				return err
			}
		}
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("change sets of table %s: %w", tableName, err)
	}
	return nil
}

// Exists reports whether the table exists.
func (f *Firewall) Exists(family rules.Family, tableName string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.conn.ListTableOfFamily(tableName, table(family, tableName).Family)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return t != nil && err == nil, err
}

// Ports reads the published ports that the tables in the kernel have; none when
// there are no such tables.
func (f *Firewall) Ports(tableName string) ([]rules.Port, error) {
	var out []rules.Port
	for _, family := range []rules.Family{rules.IPv4, rules.IPv6} {
		ok, err := f.Exists(family, tableName)
		if err == nil && ok {
			err = f.portsOf(family, tableName, &out)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *Firewall) portsOf(family rules.Family, tableName string, out *[]rules.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	sets, err := f.conn.GetSets(table(family, tableName))
	if err != nil {
		return fmt.Errorf("list sets of table %s: %w", tableName, err)
	}
	for _, set := range sets {
		switch set.Name {
		case rules.SetPorts, rules.SetPortsAny, rules.SetDirect:
		default:
			continue
		}
		es, err := f.conn.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("read set %s: %w", set.Name, err)
		}
		for _, e := range es {
			if p, ok := decodePort(family, set.Name, e.Key, e.Val); ok {
				*out = append(*out, p)
			}
		}
	}
	return nil
}

// decodePort is the inverse of [rules.Port.Element]; what has another shape (a
// table of another version) is not a port.
func decodePort(family rules.Family, set string, key, val []byte) (rules.Port, bool) {
	addr, size := netip.IPv4Unspecified(), 4
	if family == rules.IPv6 {
		addr, size = netip.IPv6Unspecified(), 16
	}
	if set != rules.SetPortsAny {
		if len(key) < size {
			return rules.Port{}, false
		}
		addr, _ = netip.AddrFromSlice(key[:size])
		key = key[size:]
	}
	if len(key) < 6 || set != rules.SetDirect && len(val) < size+2 {
		return rules.Port{}, false
	}
	p := rules.Port{Host: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(key[4:])), Proto: "tcp"}
	switch key[0] {
	case unix.IPPROTO_UDP:
		p.Proto = "udp"
	case unix.IPPROTO_SCTP:
		p.Proto = "sctp"
	}
	if set == rules.SetDirect {
		p.Host, p.To = netip.AddrPort{}, p.Host
		return p, true
	}
	to, _ := netip.AddrFromSlice(val[:size])
	p.To = netip.AddrPortFrom(to, binary.BigEndian.Uint16(val[size:]))
	return p, true
}
