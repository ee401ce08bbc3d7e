// Package networks serves docker's network verbs: it asks the network manager,
// and the containers where one of them is concerned.
package networks

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Manager is network.Manager.
type Manager interface {
	Create(ctx context.Context, r *network.CreateRequest) (network.CreateResponse, error)
	List() []network.Inspect
	Inspect(nameOrID string) (*network.Inspect, error)
	Remove(ctx context.Context, nameOrID string) error
}

// Containers attaches containers, running or not, to networks.
type Containers interface {
	ConnectNetwork(ctx context.Context, containerID, networkID string, e *network.EndpointSettings) error
	DisconnectNetwork(ctx context.Context, containerID, networkID string, force bool) error
}

// Publisher takes events.
type Publisher interface {
	Publish(t events.Type, a events.Action, id string, attrs map[string]string)
}

// Options are what a [Service] is made of; all are required.
type Options struct {
	Manager    Manager
	Containers Containers
	Events     Publisher
	Log        *slog.Logger
}

// Service implements the API's network verbs.
type Service struct {
	manager    Manager
	containers Containers
	events     Publisher
	log        *slog.Logger
	pruning    chan struct{} // holds a token while nobody prunes
}

// New makes the service.
func New(o Options) *Service {
	s := &Service{manager: o.Manager, containers: o.Containers, events: o.Events, log: o.Log, pruning: make(chan struct{}, 1)}
	s.pruning <- struct{}{}
	return s
}

// Create makes a network.
func (s *Service) Create(ctx context.Context, r *network.CreateRequest) (network.CreateResponse, error) {
	return s.manager.Create(ctx, r)
}

// Inspect describes a network with its containers.
func (s *Service) Inspect(_ context.Context, id string) (*network.Inspect, error) {
	return s.manager.Inspect(id)
}

// Remove removes a network that no running container is on.
func (s *Service) Remove(ctx context.Context, id string) error {
	return s.manager.Remove(ctx, id)
}

// Connect attaches a container.
func (s *Service) Connect(ctx context.Context, id string, r *network.ConnectRequest) error {
	n, err := s.manager.Inspect(id)
	if err != nil {
		return err
	}
	return s.containers.ConnectNetwork(ctx, r.Container, n.ID, r.EndpointConfig)
}

// Disconnect detaches a container.
func (s *Service) Disconnect(ctx context.Context, id string, r *network.DisconnectRequest) error {
	n, err := s.manager.Inspect(id)
	if err != nil {
		return err
	}
	return s.containers.DisconnectNetwork(ctx, r.Container, n.ID, r.Force)
}

// List describes the networks that match the filters.
func (s *Service) List(_ context.Context, f filter.Set) ([]network.Inspect, error) {
	if err := f.Check("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	for _, t := range f["type"] {
		if t != "custom" && t != "builtin" {
			return nil, errs.Newf(errs.Invalid, "invalid filter: 'type'='%s'", t)
		}
	}
	named := f.Matcher("name")
	return slices.DeleteFunc(s.manager.List(), func(n network.Inspect) bool {
		switch {
		case !f.Exact("driver", n.Driver), !f.Exact("scope", n.Scope), !f.Prefix("id", n.ID),
			!named(n.Name), !f.Labels("label", n.Labels):
			return true
		case f.Has("type") && !slices.Contains(f["type"], kind(n)):
			return true
		}
		return f.Has("dangling") && dangling != (kind(n) == "custom" && len(n.Containers) == 0)
	}), nil
}

func kind(n network.Inspect) string {
	switch n.Name {
	case network.NetworkBridge, network.NetworkHost, network.NetworkNone:
		return "builtin"
	}
	return "custom"
}

// Prune removes the networks that no running container is on, and keeps
// configurations.
func (s *Service) Prune(ctx context.Context, f filter.Set) (network.PruneReport, error) {
	report := network.PruneReport{}
	if err := f.Check("label", "label!", "until"); err != nil {
		return report, err
	}
	until, err := parseUntil(f["until"], time.Now())
	if err != nil {
		return report, err
	}
	select {
	case <-s.pruning:
		defer func() { s.pruning <- struct{}{} }()
	default:
		return report, errs.New(errs.Conflict, "a prune operation is already running")
	}
	for _, n := range s.manager.List() {
		if ctx.Err() != nil {
			break // what was done is told
		}
		if kind(n) == "builtin" || n.ConfigOnly || len(n.Containers) > 0 || !until.IsZero() && n.Created.After(until) ||
			!f.Labels("label", n.Labels) || unwanted(f, n.Labels) {
			continue
		}
		if err := s.manager.Remove(ctx, n.ID); err != nil {
			s.log.WarnContext(ctx, "cannot prune network", "network", n.Name, "error", err)
			continue
		}
		report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
	}
	s.events.Publish(events.NetworkEventType, events.ActionPrune, "", map[string]string{"reclaimed": "0"})
	return report, nil
}

// unwanted reports whether labels have one that "label!" names.
func unwanted(f filter.Set, labels map[string]string) bool {
	return slices.ContainsFunc(f["label!"], func(want string) bool {
		return filter.Set{"label": {want}}.Labels("label", labels)
	})
}

// parseUntil reads a duration before now, a date, or seconds since 1970.
func parseUntil(values []string, now time.Time) (time.Time, error) {
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, errs.New(errs.Invalid, "more than one until filter specified")
	}
	v := values[0]
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if seconds, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(0, int64(seconds*float64(time.Second))), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errs.Newf(errs.Invalid, "invalid until filter %q", v)
}
