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
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("connect to nftables: %w", err)
	}
	return &Firewall{conn: conn}, nil
}

// Close closes the connection; the rules stay.
func (f *Firewall) Close() error { return f.conn.CloseLasting() }

func table(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
}

// Replace puts the table in place of what the table of its name was.
func (f *Firewall) Replace(t rules.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	nt := table(t.Name)
	f.conn.AddTable(nt) // so that the deletion finds one
	f.conn.DelTable(nt)
	if err := f.add(t); err != nil {
		return err
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("apply table %s: %w", t.Name, err)
	}
	return nil
}

// Add makes a table that is known not to exist.
func (f *Firewall) Add(t rules.Table) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.add(t); err != nil {
		return err
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("add table %s: %w", t.Name, err)
	}
	return nil
}

func (f *Firewall) add(t rules.Table) error {
	nt := table(t.Name)
	f.conn.AddTable(nt)
	for i, s := range t.Sets {
		ns, err := kernelSet(nt, s)
		if err != nil {
			return err
		}
		ns.ID = uint32(i + 1) // within the transaction; the library's own counter is not guarded
		if err := f.conn.AddSet(ns, elements(s.Elements)); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
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
			exprs, err := compile(r)
			if err != nil {
				return fmt.Errorf("chain %s: %s: %w", c.Name, r, err)
			}
			f.conn.AddRule(&nftables.Rule{Table: nt, Chain: &nftables.Chain{Name: c.Name, Table: nt}, Exprs: exprs})
		}
	}
	return nil
}

// Delete removes the table; none is no error.
func (f *Firewall) Delete(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn.AddTable(table(name))
	f.conn.DelTable(table(name))
	return f.conn.Flush()
}

// AddElements adds the elements, by name of their set, all or none.
func (f *Firewall) AddElements(tableName string, bySet map[string][]rules.Element) error {
	return f.change(tableName, bySet, f.conn.SetAddElements)
}

// DeleteElements removes the elements, by name of their set, all or none.
func (f *Firewall) DeleteElements(tableName string, bySet map[string][]rules.Element) error {
	return f.change(tableName, bySet, f.conn.SetDeleteElements)
}

func (f *Firewall) change(tableName string, bySet map[string][]rules.Element, op func(*nftables.Set, []nftables.SetElement) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, es := range bySet {
		if len(es) == 0 {
			continue
		}
		if err := op(&nftables.Set{Table: table(tableName), Name: name, IsMap: true}, elements(es)); err != nil {
			return err
		}
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("change sets of table %s: %w", tableName, err)
	}
	return nil
}

// Exists reports whether the table exists.
func (f *Firewall) Exists(tableName string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := f.conn.ListTableOfFamily(tableName, nftables.TableFamilyIPv4)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return t != nil && err == nil, err
}

// Ports reads the published ports that the table in the kernel has; none when
// there is no such table.
func (f *Firewall) Ports(tableName string) ([]rules.Port, error) {
	if ok, err := f.Exists(tableName); err != nil || !ok {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []rules.Port
	for _, name := range []string{rules.SetPorts, rules.SetPortsAny} {
		set, err := kernelSet(table(tableName), rules.Set{Name: name, Data: []rules.Type{rules.TypeAddr}})
		if err != nil {
			return nil, err
		}
		es, err := f.conn.GetSetElements(set)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", name, err)
		}
		for _, e := range es {
			if p, ok := decodePort(name, e.Key, e.Val); ok {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// decodePort is the inverse of [rules.Port.Element]; what has another shape (a
// table of another version) is not a port.
func decodePort(set string, key, val []byte) (rules.Port, bool) {
	addr := netip.IPv4Unspecified()
	if set == rules.SetPorts {
		if len(key) < 4 {
			return rules.Port{}, false
		}
		addr, key = netip.AddrFrom4([4]byte(key)), key[4:]
	}
	if len(key) < 6 || len(val) < 6 {
		return rules.Port{}, false
	}
	p := rules.Port{
		Host:  netip.AddrPortFrom(addr, binary.BigEndian.Uint16(key[4:])),
		Proto: "tcp",
		To:    netip.AddrPortFrom(netip.AddrFrom4([4]byte(val)), binary.BigEndian.Uint16(val[4:])),
	}
	if key[0] == unix.IPPROTO_UDP {
		p.Proto = "udp"
	}
	return p, true
}
