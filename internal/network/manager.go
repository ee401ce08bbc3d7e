package network

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/meta"
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
type Pool struct {
	Base netip.Prefix
	Size int
}

// Options configure a [Manager].
type Options struct {
	RunDir            string // run-time state of this daemon
	Table             *meta.Table[Record]
	Events            Publisher
	Log               *slog.Logger
	BIP               netip.Prefix // address and mask of the default bridge; zero: chosen
	DefaultBridgeName string       // "" is skiff0
	TableName         string       // of nftables; "" is skiff
	Pools             []Pool       // nil: docker's
	MTU               int          // 0 is 1500
	PoolSize          int          // namespaces made ahead; 0 is 4, negative none
	NoProxy           bool         // do not serve published ports over IPv6
	NoForwardDrop     bool         // do not drop others' forwarding where we switched it on
}

// Manager owns the host's side of every network.
type Manager struct{ o Options }

// NetworkInfo is what others need to know of a network before using it.
type NetworkInfo struct {
	ID, Name, Driver, Scope string
	Internal                bool
	UserDefined             bool // has names of its own: aliases work
	UserSubnet              bool // fixed addresses may be asked for
}

// New makes the manager and the predefined networks.
func New(ctx context.Context, o Options) (*Manager, error) { return &Manager{o}, nil }

// Lookup finds a network by name, id or unique prefix of its id.
func (m *Manager) Lookup(nameOrID string) (NetworkInfo, error) {
	return NetworkInfo{}, errs.Newf(errs.NotFound, "network %s not found", nameOrID)
}

// Create makes a user-defined network.
func (m *Manager) Create(ctx context.Context, r *network.CreateRequest) (network.CreateResponse, error) {
	return network.CreateResponse{}, errs.New(errs.Unsupported, "not yet")
}

// List describes the networks that match, without their containers.
func (m *Manager) List(f filter.Set) ([]network.Inspect, error) { return nil, nil }

// Inspect describes one network with its live endpoints.
func (m *Manager) Inspect(nameOrID string) (*network.Inspect, error) {
	return nil, errs.Newf(errs.NotFound, "network %s not found", nameOrID)
}

// Remove removes a user-defined network without endpoints.
func (m *Manager) Remove(ctx context.Context, nameOrID string) error {
	return errs.Newf(errs.NotFound, "network %s not found", nameOrID)
}

// Reconcile removes what belongs to nobody, after all sandboxes were adopted.
func (m *Manager) Reconcile(ctx context.Context) error { return nil }

// Close stops serving; everything stays in place for running containers.
func (m *Manager) Close() error { return nil }
