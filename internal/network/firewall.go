package network

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/skiff-containers/skiff/internal/network/apply"
	"github.com/skiff-containers/skiff/internal/network/rules"
)

// firewall is the host's tables, that of IPv6 only where a network has it: what
// they should hold, and the way to the kernel.
type firewall struct {
	kernel *apply.Firewall
	watch  *apply.Watch

	// mu guards what follows, and orders changes of the kernel: it is held for
	// the tens of microseconds that a transaction takes.
	mu    sync.Mutex
	host  rules.Host // but for ports
	has6  bool       // there is, or may be, a table of IPv6
	ports map[portAt]rules.Port
	// stale are ports that a daemon before published and no adopted sandbox
	// claimed yet; they are in ports too.
	stale map[portAt]bool
}

// portAt is what a published port is known by.
type portAt struct {
	host  netip.AddrPort
	proto string
	to    netip.AddrPort // without a host's address
}

func at(p rules.Port) portAt {
	if p.Host.IsValid() {
		return portAt{p.Host, p.Proto, netip.AddrPort{}}
	}
	return portAt{p.Host, p.Proto, p.To}
}

func setOf(p rules.Port) (apply.SetOf, rules.Element) {
	set, e := p.Element()
	return apply.SetOf{Family: p.Family(), Set: set}, e
}

// openFirewall reads the ports that the table of a daemon before still publishes.
func openFirewall(host rules.Host) (*firewall, error) {
	kernel, err := apply.Open()
	if err != nil {
		return nil, err
	}
	f := &firewall{
		kernel: kernel, host: host,
		has6: true, ports: map[portAt]rules.Port{}, stale: map[portAt]bool{},
	}
	if f.watch, err = apply.OpenWatch(); err != nil {
		return nil, errors.Join(err, kernel.Close())
	}
	old, err := kernel.Ports(host.Table)
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	for _, p := range old {
		f.ports[at(p)], f.stale[at(p)] = p, true
	}
	return f, nil
}

func (f *firewall) close() error { return errors.Join(f.watch.Close(), f.kernel.Close()) }

// guard repairs the table for as long as the watch is open.
func (f *firewall) guard(log *slog.Logger) {
	f.watch.Run(f.host.Table, func() {
		repaired, err := f.repair()
		switch {
		case err != nil:
			log.Error("cannot put the firewall's table back", "table", f.host.Table, "error", err)
		case repaired:
			log.Warn("somebody deleted the firewall's table: it was put back", "table", f.host.Table)
		}
	})
}

// setNetworks puts the whole table in place, in one transaction.
func (f *firewall) setNetworks(ns []rules.Network) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host.Networks = ns
	return f.replace()
}

// repair puts the table back if somebody took it away.
func (f *firewall) repair() (repaired bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there, err := f.kernel.Exists(rules.IPv4, f.host.Table)
	if there && err == nil && f.has6 {
		there, err = f.kernel.Exists(rules.IPv6, f.host.Table)
	}
	if there || err != nil {
		return false, err
	}
	return true, f.replace()
}

func (f *firewall) replace() error {
	h := f.host
	h.Ports = slices.Collect(maps.Values(f.ports))
	tables := []rules.Table{h.Build(rules.IPv4)}
	wants6 := h.OnlyOurs6 || slices.ContainsFunc(h.Networks, func(n rules.Network) bool { return n.V6.Prefix.IsValid() })
	if wants6 {
		tables = append(tables, h.Build(rules.IPv6))
	}
	if err := f.kernel.Replace(tables...); err != nil {
		return err
	}
	if f.has6 && !wants6 {
		if err := f.dropTable6(); err != nil {
			return err
		}
	}
	f.has6 = wants6
	return nil
}

func (f *firewall) dropTable6() error {
	there, err := f.kernel.Exists(rules.IPv6, f.host.Table)
	if err != nil || !there {
		return err
	}
	return f.kernel.Delete(rules.IPv6, f.host.Table)
}

// onlyOurs6 drops what others forward over IPv6.
func (f *firewall) onlyOurs6(on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host.OnlyOurs6 = on
	return f.replace()
}

// publish adds the ports, all or none.
func (f *firewall) publish(ps []rules.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	add, replaced := map[apply.SetOf][]rules.Element{}, map[apply.SetOf][]rules.Element{}
	for _, p := range ps {
		set, e := setOf(p)
		old, ok := f.ports[at(p)]
		if ok && old == p {
			continue // in place already: adopted
		}
		if ok {
			_, was := setOf(old)
			replaced[set] = append(replaced[set], was)
		}
		add[set] = append(add[set], e)
	}
	if len(replaced) > 0 {
		if err := f.kernel.DeleteElements(f.host.Table, replaced); err != nil {
			return err
		}
	}
	if len(add) > 0 {
		if err := f.kernel.AddElements(f.host.Table, add); err != nil {
			return err
		}
	}
	for _, p := range ps {
		f.ports[at(p)] = p
		delete(f.stale, at(p))
	}
	return nil
}

// withdraw removes the ports. They are forgotten whether or not the kernel still
// had them: the next whole table is without them in any case.
func (f *firewall) withdraw(ps []rules.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := map[apply.SetOf][]rules.Element{}
	for _, p := range ps {
		if f.ports[at(p)] != p {
			continue
		}
		set, e := setOf(p)
		gone[set] = append(gone[set], e)
		delete(f.ports, at(p))
		delete(f.stale, at(p))
	}
	if len(gone) == 0 {
		return nil
	}
	if err := f.kernel.DeleteElements(f.host.Table, gone); err != nil {
		return f.replace()
	}
	return nil
}

// dropStale forgets the ports that nobody claimed.
func (f *firewall) dropStale() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.stale {
		delete(f.ports, p)
	}
	clear(f.stale)
}
