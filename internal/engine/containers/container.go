package containers

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// ctr is one container in memory.
type ctr struct {
	id      string    // constant
	created time.Time // constant: lists go by it

	// busy holds a token while a verb has the container's turn. A channel, so
	// that a caller that gives up stops waiting.
	busy chan struct{}

	mu       sync.Mutex // guards all below; held for moments, never over I/O
	rec      Record
	st       Status
	sandbox  Sandbox // nil while it has none of its own
	net      netView
	image    *Image // resolved when first needed after a boot
	waiters  []*waiter
	health   *health // nil without a health check or when never started
	oom      func()  // ends the watch for memory that is used up; nil without
	backoff  backoff
	retry    func() // cancels the coming restart; nil if none comes
	execs    map[string]*execProc
	removed  bool // it is gone
	removing bool // a client has asked for that
	// restarting is set while Restart stops it to start it again: its exit
	// neither removes it nor follows its policy.
	restarting bool
	forward    LogForwarder // nil: its log stays here
}

// netView is what lists and inspect show of a running container's network.
type netView struct {
	endpoints map[string]*network.EndpointSettings // operational; replaced, never changed
	ports     network.PortMap
}

// setNet takes over what shows of the network. As docker does, the container
// keeps, when it has ended, which networks it was in and its names there. The
// caller has mu, if others know the container.
func (c *ctr) setNet(v netView) {
	c.net = v
	if c.rec.HostConfig.AutoRemove {
		return
	}
	var list map[string]*network.EndpointSettings
	for name, now := range v.endpoints {
		e := c.rec.Endpoints[name]
		if e == nil || e.NetworkID == now.NetworkID && slices.Equal(e.DNSNames, now.DNSNames) {
			continue
		}
		if list == nil {
			list = maps.Clone(c.rec.Endpoints)
		}
		e = declared(e)
		e.NetworkID, e.DNSNames = now.NetworkID, slices.Clone(now.DNSNames)
		list[name] = e
	}
	if list != nil {
		c.rec.Endpoints = list // replaced, since others may be reading it
	}
}

func newCtr(rec Record) *ctr {
	return &ctr{id: rec.ID, created: rec.Created, rec: rec, st: rec.Last, busy: make(chan struct{}, 1)}
}

// turn waits until no other verb changes the container. The caller must call
// the returned function.
func (c *ctr) turn(ctx context.Context) (done func(), err error) {
	select {
	case c.busy <- struct{}{}:
		return func() { <-c.busy }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// claim finds a container and waits for its turn. The caller must call done.
func (s *Service) claim(ctx context.Context, ref string) (c *ctr, done func(), err error) {
	if c, err = s.index.get(ref); err != nil {
		return nil, nil, err
	}
	if done, err = c.turn(ctx); err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	removed := c.removed
	c.mu.Unlock()
	if removed { // while we waited
		done()
		return nil, nil, errs.Newf(errs.NotFound, "No such container: %s", ref)
	}
	return c, done, nil
}

// record returns a copy of the declaration.
func (c *ctr) record() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

func (c *ctr) status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.st
}

func (c *ctr) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.Name
}

// look returns what shows of the container at one moment.
func (c *ctr) look() view {
	var v view
	c.lookInto(&v)
	return v
}

// lookInto is look for those who look at many.
func (c *ctr) lookInto(v *view) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.rec, v.st, v.net, v.health, v.execs = c.rec, c.st, c.net, nil, nil
	if c.health != nil {
		v.health = c.health.result
	}
	for id, e := range c.execs {
		if !e.over() {
			v.execs = append(v.execs, id)
		}
	}
	slices.Sort(v.execs)
}

// view is a container at one moment. Everything in it is read-only.
type view struct {
	rec    Record
	st     Status
	net    netView
	health *container.Health
	execs  []string
}

// runtimeIO says how the container's streams are wired.
func (r *Record) runtimeIO() runtime.IO {
	return runtime.IO{
		TTY: r.Config.Tty, Stdin: r.Config.OpenStdin, StdinOnce: r.Config.StdinOnce,
		Console: r.HostConfig.ConsoleSize,
	}
}

// event tells what happened to a container, with docker's attributes: its
// labels, image and name, and then the event's own.
func (s *Service) event(rec *Record, a apievents.Action, extra map[string]string) {
	attrs := make(map[string]string, len(rec.Config.Labels)+len(extra)+2)
	maps.Copy(attrs, extra)
	maps.Copy(attrs, rec.Config.Labels)
	if rec.Config.Image != "" {
		attrs["image"] = rec.Config.Image
	}
	attrs["name"] = rec.Name
	s.o.Events.Publish(apievents.ContainerEventType, a, rec.ID, attrs)
}
