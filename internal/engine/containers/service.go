package containers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/sys/quota"
)

// Options are what a [Service] is made of. The interfaces and the roots are
// required.
type Options struct {
	DataRoot string // of the daemon; containers live in its containers/
	ExecRoot string // run-time state; empty after a reboot
	Log      *slog.Logger

	Runtime  runtime.Runtime
	CRIU     func() (path string, err error) // finds the program that checkpoints need; nil: none are made
	Networks Networks
	Images   Images
	Volumes  Volumes
	Logs     LogStore
	Layers   Layers
	Events   Events
	Cgroups  Cgroups
	Shm      Shm    // nil: mounts on the host
	Quotas   Quotas // nil: the file system's project quotas
	Records  Records

	Live // at first

	DefaultLog container.LogConfig // for containers that name no driver
	// DNS is for containers that name no servers of their own, and so on.
	DNS                   []netip.Addr
	DNSSearch, DNSOptions []string
	NoBridge              bool       // containers of the network "bridge" have none
	PublishAddr           netip.Addr // for ports published on no certain address; zero: every one
	DetachKeys            string     // "" is ctrl-p,ctrl-q
	Storage               string     // name of the layer store, for inspect; "" is "overlay2"

	// LayerSize limits the writable layers of containers that ask for no size,
	// in bytes; 0 is no limit.
	LayerSize uint64
	// Pool is how many writable layers are kept prepared; 0 is 4, negative none.
	Pool int
}

// SpecDefaults are the host and the daemon's defaults that a container's
// specification depends on, beside its configuration.
type SpecDefaults struct {
	Host            spec.HostFacts
	CgroupParent    string // "" is /skiff
	Ulimits         map[string]*container.Ulimit
	ShmSize         int64 // 0 is docker's 64 MiB
	SeccompProfile  string
	NoNewPrivileges bool
	Init            bool // --init unless a container says otherwise
	// What the parent of a container's control group may spend on real-time
	// tasks, in microseconds; 0: it is left as it is.
	RealtimePeriod, RealtimeRuntime int64
}

// Service runs containers. Make it with [New], then call [Service.Restore].
type Service struct {
	o        Options
	log      *slog.Logger
	dataRoot string // <DataRoot>/containers
	runRoot  string // <ExecRoot>/containers
	index    *index
	execs    *execTable
	trash    *trash
	pool     *pool
	stubs    *stubs
	settler  *settler
	pruning  atomic.Bool
	changing atomic.Pointer[Live]
	ending   atomic.Bool // the daemon ends the containers: see [Service.StopAll]
	now      func() time.Time

	// Set by Restore, before exits are watched for.
	partial bool            // there are containers that cannot be read
	strays  map[string]bool // what it kills since nobody has it

	// ctx ends with the service: exits, restarts and health checks stop then,
	// containers do not.
	ctx    context.Context
	cancel context.CancelCauseFunc
	tasks  tasks
}

// tasks counts what runs in the background, and takes no more once closed.
type tasks struct {
	mu     sync.Mutex // guards closed, and Add against Wait
	closed bool
	wg     sync.WaitGroup
}

// run starts f unless the service is closing.
func (t *tasks) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

func (t *tasks) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}

var errClosed = errors.New("the container service is closing")

// New makes the service. It does nothing until [Service.Restore].
func New(o Options) (*Service, error) {
	switch {
	case o.DataRoot == "" || o.ExecRoot == "":
		return nil, errors.New("containers: no data or run directory given")
	case o.Runtime == nil || o.Networks == nil || o.Images == nil || o.Volumes == nil ||
		o.Logs == nil || o.Layers == nil || o.Events == nil || o.Cgroups == nil || o.Records == nil:
		return nil, errors.New("containers: a dependency is missing")
	}
	if o.Shm == nil {
		o.Shm = hostShm{}
	}
	if o.Quotas == nil {
		o.Quotas = new(quota.Projects)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.DefaultLog.Type == "" {
		o.DefaultLog.Type = logs.DriverLocal
	}
	if o.Storage == "" {
		o.Storage = "overlay2"
	}
	if o.Pool == 0 {
		o.Pool = 4
	}
	s := &Service{
		o: o, log: o.Log, strays: map[string]bool{}, index: newIndex(), execs: newExecTable(), now: time.Now,
		dataRoot: filepath.Join(o.DataRoot, "containers"),
		runRoot:  filepath.Join(o.ExecRoot, "containers"),
	}
	s.Reconfigure(o.Live)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	for _, dir := range []string{s.dataRoot, s.runRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("containers: %w", err)
		}
	}
	s.trash = newTrash(filepath.Join(s.dataRoot, trashName), s.log)
	s.pool = newPool(s.dataRoot, o.Pool, s.log)
	s.stubs = newStubs(s.dataRoot, o.Layers)
	s.settler = newSettler(s)
	return s, nil
}

// Close stops the service; containers go on running. What was going on in the
// background is finished or, where it can be, left to the next boot.
func (s *Service) Close(ctx context.Context) error {
	s.cancel(errClosed)
	for _, c := range s.index.all() {
		c.mu.Lock()
		if c.retry != nil {
			c.retry()
			c.retry = nil
		}
		if c.health != nil {
			c.health.stop()
		}
		forward, stopOOM := c.forward, c.takeOOM()
		c.mu.Unlock()
		stopOOM()
		if forward != nil {
			s.tasks.run(forward.Stop)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.tasks.wait()
		s.settler.close()
		s.pool.close()
		s.trash.close()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close containers: %w", context.Cause(ctx))
	}
}

// Counts are for GET /info.
type Counts struct{ Total, Running, Paused, Stopped int }

// Counts counts containers by what they do.
func (s *Service) Counts() Counts {
	var n Counts
	for _, c := range s.index.all() {
		n.Total++
		switch p := c.status().Phase; {
		case p == Paused:
			n.Paused++
		case p.active():
			n.Running++
		default:
			n.Stopped++
		}
	}
	return n
}

// Exists reports whether there is a container of this id.
func (s *Service) Exists(id string) bool { return s.index.exact(id) != nil }

// Complete reports whether every container is known: what belongs to none may be
// removed then.
func (s *Service) Complete() bool { return !s.partial }

// ImageUser is a container that was made from an image.
type ImageUser struct {
	ID, Name string
	Images   []string // as its creator called it
	Running  bool
}

// ImageUseCounts counts the containers that were made from each image or have it
// mounted: what [Service.UsersOfImage] lists, of all images at once.
func (s *Service) ImageUseCounts() map[string]int {
	out := map[string]int{}
	for _, c := range s.index.all() {
		c.mu.Lock()
		if c.rec.ImageID != "" {
			out[c.rec.ImageID]++
		}
		for i, m := range c.rec.Mounts {
			again := func(o Mount) bool { return o.Type == mount.TypeImage && o.Source == m.Source }
			if m.Type == mount.TypeImage && m.Source != c.rec.ImageID && !slices.ContainsFunc(c.rec.Mounts[:i], again) {
				out[m.Source]++
			}
		}
		c.mu.Unlock()
	}
	return out
}

// UsersOfImage lists the containers that were made from an image, or have it
// mounted, by the id of its configuration; those that are being made, too.
func (s *Service) UsersOfImage(imageID string) []ImageUser {
	var out []ImageUser
	for _, c := range s.index.allAndComing() {
		c.mu.Lock()
		user := ImageUser{ID: c.id, Name: c.rec.Name, Running: c.st.Phase.active()}
		if c.rec.ImageID == imageID {
			user.Images = append(user.Images, c.rec.Config.Image)
		}
		for _, m := range c.rec.Mounts {
			if m.Type == mount.TypeImage && m.Source == imageID {
				user.Images = append(user.Images, m.Name)
			}
		}
		if len(user.Images) > 0 {
			out = append(out, user)
		}
		c.mu.Unlock()
	}
	return out
}
