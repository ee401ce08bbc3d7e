package network

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/meta"
	"github.com/skiff-containers/skiff/internal/network/ipam"
	"github.com/skiff-containers/skiff/internal/network/link"
	"github.com/skiff-containers/skiff/internal/network/rules"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// Publisher takes the events of networks: create, destroy, connect, disconnect.
type Publisher interface {
	Publish(t events.Type, a events.Action, id string, attrs map[string]string)
}

// Record is a network's row in the database.
type Record struct {
	network.Network
}

// Pool is a range that subnets of Size bits are cut from.
type Pool = ipam.Range

// DefaultPools are what subnets are cut from where nothing is configured.
func DefaultPools() []Pool { return ipam.DefaultRanges() }

// Options configure a [Manager].
type Options struct {
	RunDir            string // run-time state of this daemon
	Table             *meta.Table[Record]
	Events            Publisher
	Log               *slog.Logger
	NoDefault         bool                         // there is no default bridge
	BIP               netip.Prefix                 // address and mask of the default bridge; zero: chosen
	IPv6              bool                         // the default bridge has it, too
	BIP6              netip.Prefix                 // its address and mask of IPv6; zero: chosen
	FixedCIDR         netip.Prefix                 // where in its subnet addresses come from; without a BIP its subnet; zero: chosen
	FixedCIDR6        netip.Prefix                 // the same of IPv6
	DefaultGateway    netip.Addr                   // of containers on it; zero: the bridge
	DefaultGateway6   netip.Addr                   // the same of IPv6
	NoMasquerade      bool                         // containers on it keep their addresses outside
	Defaults          map[string]map[string]string // options of new networks, by driver
	DefaultBridgeName string                       // "" is skiff0
	TableName         string                       // of nftables; "" is skiff
	Pools             []Pool                       // nil: docker's
	MTU               int                          // 0 is 1500
	NoICC             bool                         // containers on the default bridge do not reach each other
	PoolSize          int                          // namespaces made ahead, of each kind; 0 is 3, negative none
	Users             *userns.Map                  // of their user namespaces; nil: the host's
	HostGateways      []netip.Addr                 // what "host-gateway" means; nil: the default bridge's
	NoProxy           bool                         // do not serve published ports over IPv6
	AllowDirect       bool                         // others may reach published ports by the containers' addresses
	NoForward         bool                         // do not make the host forward
	NoForwardDrop     bool                         // do not drop others' forwarding where we switched it on
}

// Manager owns the host's side of every network.
type Manager struct {
	o      Options
	group  uint32 // of our interfaces: tells them from other people's
	spaces *link.Spaces
	rt     *link.Socket
	watch  *link.Watch
	fw     *firewall
	ports  *portTable
	ahead  atomic.Pointer[ahead] // nil: nothing is made ahead
	graves graves
	ula    Pool // of IPv6 subnets, where no pool was configured

	forward6 sync.Mutex // one turns the host's forwarding of IPv6 on at a time
	parents  sync.Mutex // one makes or deletes parents of macvlan and ipvlan at a time; taken before mu
	names    hostNames
	quit     chan struct{}
	bg       sync.WaitGroup

	mu        sync.Mutex // guards what follows; taken before a lan's
	lans      map[string]*lan
	sandboxes map[string]*Sandbox
	resting   map[string]rest // by name of the host's end of a veth
}

// New makes the predefined networks and brings those of the database up. What a
// daemon before left running is kept until [Manager.Reconcile].
func New(ctx context.Context, o Options) (*Manager, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	m := &Manager{
		o: o, group: groupOf(o.RunDir), ports: newPortTable(), quit: make(chan struct{}),
		lans: map[string]*lan{}, sandboxes: map[string]*Sandbox{}, resting: map[string]rest{},
	}
	if err := m.start(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (o *Options) fill() error {
	if o.DefaultBridgeName == "" {
		o.DefaultBridgeName = "skiff0"
	}
	if o.TableName == "" {
		o.TableName = "skiff"
	}
	if o.Pools == nil {
		o.Pools = ipam.DefaultRanges()
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.PoolSize == 0 {
		o.PoolSize = 3
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, p := range o.Pools {
		if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen()-2 {
			return errs.Newf(errs.Invalid, "invalid address pool %s with subnets of %d bits: want a prefix and %d to %d",
				p.Base, p.Size, max(p.Base.Bits(), 1), p.Base.Addr().BitLen()-2)
		}
	}
	return nil
}

// groupOf derives the interface group of a daemon from its run directory, so
// that two daemons on a host leave each other's interfaces alone.
func groupOf(runDir string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte("skiff" + filepath.Clean(runDir)))
	return h.Sum32() | 1<<16 // not one of the small numbers that people use
}

func (m *Manager) start(ctx context.Context) (err error) {
	if err := os.MkdirAll(m.o.RunDir, 0o700); err != nil {
		return err
	}
	if m.spaces, err = link.OpenSpaces(); err != nil {
		return err
	}
	if m.rt, err = link.OpenSocket(); err != nil {
		return err
	}
	if m.watch, err = link.OpenWatch(); err != nil {
		return err
	}
	m.bg.Go(func() { m.watch.Run(m.linkGone, m.linksLost) })
	if err := m.enableForwarding(); err != nil {
		return err
	}
	if m.fw, err = openFirewall(rules.Host{
		Table: m.o.TableName, OnlyOurs: m.onlyOurs(false), OnlyOurs6: m.onlyOurs(true), Direct: m.o.AllowDirect,
	}); err != nil {
		return err
	}
	if err := m.load(ctx); err != nil {
		return err
	}
	if err := m.fw.setNetworks(m.firewallNetworks()); err != nil {
		return err
	}
	m.bg.Go(func() { m.fw.guard(m.o.Log) })
	if m.o.PoolSize > 0 {
		m.ahead.Store(m.newAhead(m.o.PoolSize))
	}
	return nil
}

// enableForwarding makes the host forward. Where it did not before, others'
// packets must not profit: the host shall not become a router between its
// neighbours because it runs containers.
func (m *Manager) enableForwarding() error {
	on, err := link.Forwards(false)
	if on || err != nil || m.o.NoForward {
		return err
	}
	if err := os.WriteFile(m.marker(false), nil, 0o600); err != nil {
		return err
	}
	return link.Forward4()
}

// marker is the file that tells that the host did not forward a family.
func (m *Manager) marker(v6 bool) string {
	if v6 {
		return filepath.Join(m.o.RunDir, "forwarding6-was-off")
	}
	return filepath.Join(m.o.RunDir, "forwarding-was-off")
}

// onlyOurs reports whether others' forwarding is to be dropped.
func (m *Manager) onlyOurs(v6 bool) bool {
	_, err := os.Stat(m.marker(v6))
	return err == nil && !m.o.NoForwardDrop
}

// needIPv6 makes the host forward IPv6, for a network that has it; what drops
// others' packets is in place before.
func (m *Manager) needIPv6() error {
	if !link.HasIPv6() {
		return errs.New(errs.Unsupported, "this host has no IPv6")
	}
	m.forward6.Lock()
	defer m.forward6.Unlock()
	on, err := link.Forwards(true)
	if on || err != nil || m.o.NoForward {
		return err
	}
	if err := os.WriteFile(m.marker(true), nil, 0o600); err != nil {
		return err
	}
	if err := m.fw.onlyOurs6(m.onlyOurs(true)); err != nil {
		return err
	}
	return link.Forward6()
}

// Close stops serving. Namespaces, interfaces and rules stay in place for
// running containers; only names and ports over IPv6 pause until the next
// daemon adopts them.
func (m *Manager) Close() error {
	select {
	case <-m.quit:
		return nil
	default:
		close(m.quit)
	}
	m.mu.Lock()
	sandboxes := make([]*Sandbox, 0, len(m.sandboxes))
	for _, s := range m.sandboxes {
		sandboxes = append(sandboxes, s)
	}
	m.mu.Unlock()
	for _, s := range sandboxes {
		s.abandon()
	}
	var bad []error
	if m.watch != nil {
		bad = append(bad, m.watch.Close())
	}
	if m.fw != nil {
		bad = append(bad, m.fw.close())
	}
	m.bg.Wait()
	if a := m.ahead.Load(); a != nil {
		a.close()
	}
	m.graves.close()
	if m.rt != nil {
		m.rt.Close()
	}
	if m.spaces != nil {
		bad = append(bad, m.spaces.Close())
	}
	return errors.Join(bad...)
}

func (m *Manager) publish(a events.Action, l *lan, extra map[string]string) {
	if m.o.Events == nil {
		return
	}
	attrs := map[string]string{"name": l.rec.Name, "type": l.rec.Driver}
	for k, v := range extra {
		attrs[k] = v
	}
	m.o.Events.Publish(events.NetworkEventType, a, l.rec.ID, attrs)
}
