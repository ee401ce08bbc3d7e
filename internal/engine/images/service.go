package images

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/remote"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// ContainerRef is a container that was made of an image.
type ContainerRef struct {
	ID, Name string
	Images   []string // as its creator called it
	Running  bool
}

// Options of [New].
type Options struct {
	Store  *snapshot.Store
	Remote *remote.Client
	// InUse lists the containers of an image; nil means there are none.
	InUse func(imageID string) []ContainerRef
	// UseCounts counts the containers of every image that has some; nil means
	// there are none.
	UseCounts func() map[string]int
	// Publish tells the event stream; nil drops events.
	Publish func(t events.Type, a events.Action, id string, attrs map[string]string)
	Limits  Limits // at first
	Log     *slog.Logger
}

// Service answers the image verbs.
type Service struct {
	store     *snapshot.Store
	remote    *remote.Client
	inUse     func(string) []ContainerRef
	useCounts func() map[string]int
	publish   func(events.Type, events.Action, string, map[string]string)
	log       *slog.Logger
	limits    atomic.Pointer[limits]

	cache   cache
	catalog catalog
	locks   keyLock // one worker a layer blob

	names   sync.Mutex // held by verbs that look at names and then change them
	sweep   sync.Mutex // held while collecting, so that who asks sees the end of it
	collect chan struct{}
	stop    context.CancelFunc
	done    chan struct{}
}

// New makes the service. It removes what verbs of an earlier process left half
// done, in the background.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.InUse == nil {
		o.InUse = func(string) []ContainerRef { return nil }
	}
	if o.UseCounts == nil {
		o.UseCounts = func() map[string]int { return nil }
	}
	if o.Publish == nil {
		o.Publish = func(events.Type, events.Action, string, map[string]string) {}
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Service{
		store: o.Store, remote: o.Remote, inUse: o.InUse, useCounts: o.UseCounts, publish: o.Publish, log: o.Log,
		collect: make(chan struct{}, 1), stop: stop, done: make(chan struct{}),
	}
	s.SetLimits(o.Limits)
	s.cache.init()
	s.locks.init()
	if err := s.dropOldLeases(s.store.Context(ctx)); err != nil {
		stop()
		return nil, err
	}
	go s.collector(run)
	s.kick()
	return s, nil
}

// Close ends the background work; verbs must have returned. Closing again does
// nothing.
func (s *Service) Close() {
	s.stop()
	<-s.done
}

// kick asks for a collection soon.
func (s *Service) kick() {
	select {
	case s.collect <- struct{}{}:
	default:
	}
}

func (s *Service) collector(ctx context.Context) {
	defer close(s.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.collect:
		}
		if err := s.Collect(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot collect unused layers", "error", err)
		}
	}
}

// Collect removes the blobs and layers that no image, container or builder uses.
func (s *Service) Collect(ctx context.Context) error {
	s.sweep.Lock()
	defer s.sweep.Unlock()
	return s.store.GarbageCollect(ctx)
}

const labelVerb = "skiff.verb"

// lease protects what a verb makes until it is referred to. The end function
// must be called; it works also when ctx has ended.
func (s *Service) lease(ctx context.Context, verb string) (context.Context, func(), error) {
	ctx = s.store.Context(ctx)
	l, err := s.store.Leases.Create(ctx, leases.WithID(verb+"-"+ids.New()[:16]), leases.WithExpiration(24*time.Hour),
		leases.WithLabels(map[string]string{labelVerb: verb}))
	if err != nil {
		return ctx, nil, err
	}
	end := func() {
		if err := s.store.Leases.Delete(context.WithoutCancel(ctx), l); err != nil {
			s.log.WarnContext(ctx, "cannot end a lease", "lease", l.ID, "error", err)
		}
	}
	return leases.WithLease(ctx, l.ID), end, nil
}

// dropOldLeases ends the leases of verbs that a killed process was in.
func (s *Service) dropOldLeases(ctx context.Context) error {
	ls, err := s.store.Leases.List(ctx)
	if err != nil {
		return err
	}
	for _, l := range ls {
		if l.Labels[labelVerb] != "" {
			if err := s.store.Leases.Delete(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// event publishes what happened to an image, with its labels; img is nil where
// docker tells none: of what is gone.
func (s *Service) event(a events.Action, id, name string, img *Image) {
	attrs := map[string]string{}
	if img != nil {
		for k, v := range img.Config.Config.Labels {
			attrs[k] = v
		}
	}
	if name != "" {
		attrs["name"] = name
	}
	s.publish(events.ImageEventType, a, id, attrs)
}

// keyLock is a mutex a key.
type keyLock struct {
	mu   sync.Mutex
	held map[digest.Digest]chan struct{}
}

func (k *keyLock) init() { k.held = map[digest.Digest]chan struct{}{} }

// lock waits for the key or the end of ctx.
func (k *keyLock) lock(ctx context.Context, key digest.Digest) (unlock func(), err error) {
	for {
		k.mu.Lock()
		wait, busy := k.held[key]
		if !busy {
			mine := make(chan struct{})
			k.held[key] = mine
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, key)
				k.mu.Unlock()
				close(mine)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
