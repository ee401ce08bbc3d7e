package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// Exit codes docker gives a container whose command could not be started.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitUnknown       = 128
)

// Start starts a container; one that runs already is an error of kind Unchanged.
func (s *Service) Start(ctx context.Context, id string) error {
	c, done, err := s.claim(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	return s.startByHand(ctx, c, nil)
}

// startByHand is a start that a person asked for: it forgets what the restart
// policy counted, from a checkpoint if there is one. The caller has the turn.
func (s *Service) startByHand(ctx context.Context, c *ctr, from *runtime.Checkpoint) error {
	c.mu.Lock()
	switch p := c.st.Phase; {
	case p == Paused:
		c.mu.Unlock()
		return errs.New(errs.Conflict, "cannot start a paused container, try unpause instead")
	case p.active():
		c.mu.Unlock()
		return errs.New(errs.Unchanged, "container is already running")
	case p == Removing || p == Dead || c.removing:
		c.mu.Unlock()
		return errs.New(errs.Conflict, "container is marked for removal and cannot be started")
	}
	c.st.Stopped, c.st.Restarts, c.backoff = false, 0, backoff{}
	c.mu.Unlock()
	return s.start(ctx, c, from)
}

// start brings a container up, or leaves it as it was with the failure noted.
// The caller has the turn.
func (s *Service) start(ctx context.Context, c *ctr, from *runtime.Checkpoint) error {
	if s.ctx.Err() != nil {
		return errs.With(errs.Unavailable, errClosed)
	}
	ctx = context.WithoutCancel(ctx) // half a start helps nobody
	err := s.launch(ctx, c, from)
	if err == nil {
		return nil
	}
	s.startFailed(ctx, c, err)
	return commandErr(err)
}

// commandErr makes it the client's mistake where the command is at fault.
func commandErr(err error) error {
	var se *runtime.StartError
	if errors.As(err, &se) && (se.Invalid || se.Code == exitNotFound || se.Code == exitNotExecutable) {
		return errs.With(errs.Invalid, err)
	}
	return err
}

// launch does the work of a start, each step undone if a later one fails.
func (s *Service) launch(ctx context.Context, c *ctr, from *runtime.Checkpoint) error {
	var undo cleanup.Stack
	defer undo.Run()
	rec := c.record()

	c.mu.Lock()
	first := c.st.neverStarted()
	c.st.Starting = true
	c.mu.Unlock()

	volumes, err := s.mountVolumes(ctx, &rec, c.id, &undo)
	if err != nil {
		return err
	}
	// The network and the specification need nothing of each other.
	type built struct {
		launch *runtime.Launch
		err    error
	}
	var joins joins
	defer joins.close()
	ready := make(chan built, 1)
	go func() {
		l, err := s.plan(ctx, c, &rec, volumes, &joins)
		ready <- built{l, err}
	}()
	net, netErr := s.network(ctx, c, &rec)
	if netErr == nil {
		undo.Push(func() { net.undo(ctx) })
	}
	b := <-ready
	if err := firstError(netErr, b.err); err != nil {
		return err
	}
	if rec.HostConfig.IpcMode.IsShareable() {
		if err := s.mountShm(&rec); err != nil {
			return err
		}
		undo.Push(func() { s.unmountShm(c.id) })
	}
	l := b.launch
	l.NetNS, l.Restore = net.ns, from
	if err := s.addFiles(c, &rec, net, l.Spec); err != nil {
		return err
	}
	if first {
		if err := s.copyUp(ctx, &rec, *l.Rootfs, volumes); err != nil {
			return err
		}
	}
	// Written before the process exists: whatever happens to this daemon now, the
	// next one knows whose the process and its network are.
	if err := s.saveRun(c); err != nil {
		return err
	}
	if err := s.forwardLog(c, &rec, true); err != nil {
		return fmt.Errorf("failed to create task for container: failed to initialize logging driver: %w", err)
	}
	undo.Push(c.finishForward)
	started, err := s.startProcess(ctx, l)
	if err != nil {
		return err
	}
	undo.Release()
	s.running(c, &rec, started, net)
	for _, m := range rec.Mounts {
		s.volumeEvent(&rec, m, apievents.ActionMount)
	}
	s.event(&rec, apievents.ActionStart, nil)
	s.settle(c)
	return nil
}

// startProcess has the runtime start it, also where that still knows how it ended
// before: it could not be told to forget that then.
func (s *Service) startProcess(ctx context.Context, l *runtime.Launch) (runtime.Started, error) {
	started, err := s.o.Runtime.Start(ctx, l)
	if !errs.Is(err, errs.Conflict) {
		return started, err
	}
	list, listErr := s.o.Runtime.List(ctx)
	stale := slices.ContainsFunc(list, func(st runtime.State) bool { return st.ID == l.ID && st.Exit != nil })
	if listErr != nil || !stale {
		return started, err
	}
	if delErr := s.o.Runtime.Delete(ctx, l.ID); delErr != nil {
		return started, fmt.Errorf("%w: its last run cannot be cleared up: %w", err, delErr)
	}
	return s.o.Runtime.Start(ctx, l)
}

func firstError(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// running records a start that worked.
func (s *Service) running(c *ctr, rec *Record, started runtime.Started, net *netPlan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.st.started(started.PID, started.StartTicks, started.At)
	c.setNet(net.view())
	c.startHealth(s, rec)
	c.watchOOM(s)
}

// startFailed notes why, and removes a container that was made with --rm. Who
// waits for an end goes on waiting, as with docker: whoever started it is told.
func (s *Service) startFailed(ctx context.Context, c *ctr, err error) {
	code := exitUnknown
	var se *runtime.StartError
	if errors.As(err, &se) && (se.Code == exitNotFound || se.Code == exitNotExecutable) {
		code = se.Code
	}
	c.mu.Lock()
	c.st.Starting, c.st.Error, c.st.ExitCode = false, err.Error(), code
	rec := c.rec
	c.restarting = false
	c.mu.Unlock()
	if rec.HostConfig.AutoRemove {
		if rmErr := s.removeLocked(ctx, c, true, nil); rmErr != nil {
			s.log.ErrorContext(ctx, "cannot remove a container that did not start", "container", c.id, "err", rmErr)
		}
		s.forget(ctx, c.id)
	} else {
		if saveErr := s.saveRun(c); saveErr != nil {
			s.log.WarnContext(ctx, "cannot save a container's state", "container", c.id, "err", saveErr)
		}
		s.settle(c)
	}
}

// plan works the launch out, but for the network.
func (s *Service) plan(ctx context.Context, c *ctr, rec *Record, volumes map[string]MountedVolume, j *joins) (*runtime.Launch, error) {
	external, err := s.external(rec)
	if err != nil {
		return nil, err
	}
	rootfs, err := s.rootfs(ctx, c, rec)
	if err != nil {
		return nil, err
	}
	links, err := s.links(rec)
	if err != nil {
		return nil, err
	}
	in := s.specInput(rec, links)
	if err := s.join(rec, &in, j); err != nil {
		return nil, err
	}
	if in.Mounts, err = s.specMounts(ctx, rec, volumes); err != nil {
		return nil, err
	}
	oci, warnings, err := spec.Build(in)
	if err != nil {
		// The configuration passed at create: it is this host's state that is at
		// fault now.
		return nil, errs.With(errs.Internal, err)
	}
	for _, w := range warnings {
		s.log.WarnContext(ctx, "container specification", "container", c.id, "warning", w)
	}
	if d := s.spec(); d.RealtimePeriod != 0 || d.RealtimeRuntime != 0 {
		if err := s.o.Cgroups.GiveRealtime(path.Dir(in.CgroupPath), d.RealtimePeriod, d.RealtimeRuntime); err != nil {
			return nil, err
		}
	}
	user := spec.User(rec.Config, rec.HostConfig)
	for _, gid := range oci.Process.User.AdditionalGids { // of devices
		user.Groups = append(user.Groups, strconv.FormatUint(uint64(gid), 10))
	}
	return &runtime.Launch{
		ID: c.id, Spec: oci, Rootfs: rootfs, IO: rec.runtimeIO(), Log: rec.Log,
		Init: spec.UseInit(rec.HostConfig, s.spec().Init),
		User: user, External: external,
	}, nil
}

// external is the runtime that a container names, nil for the built-in one.
func (s *Service) external(rec *Record) (*runtime.External, error) {
	name := rec.HostConfig.Runtime
	if e, ok := s.changing.Load().Runtimes[name]; ok {
		return &e, nil
	}
	if !spec.IsBuiltin(name) { // it was configured when the container was made
		return nil, errs.Newf(errs.Invalid, "unknown or invalid runtime name: %s", name)
	}
	return nil, nil
}

// specInput is the specification's input, but for its mounts and what it takes
// of others that run.
func (s *Service) specInput(rec *Record, links []link) spec.Input {
	d := s.spec()
	in := spec.Input{
		ID: rec.ID, Name: rec.Name, Hostname: rec.Config.Hostname, Domainname: rec.Config.Domainname,
		Config: rec.Config, HostConfig: rec.HostConfig, Path: rec.Path, Args: rec.Args,
		CgroupPath: spec.CgroupPath(rec.HostConfig, d.CgroupParent, rec.ID),
		Host:       d.Host, DefaultUlimits: d.Ulimits, DefaultShmSize: d.ShmSize,
		SeccompProfile: d.SeccompProfile, NoNewPrivileges: d.NoNewPrivileges,
		Env: linkEnv(rec.Name, links), ShmPath: s.shmPath(rec),
	}
	if m := rec.HostConfig.NetworkMode; m.IsContainer() {
		if other, err := s.index.get(m.ConnectedContainer()); err == nil {
			o := other.record()
			in.Hostname, in.Domainname = o.Config.Hostname, o.Config.Domainname
		}
	}
	return in
}

// users maps the ids of a container's user namespace; nil: it has none.
func (s *Service) users(rec *Record) *userns.Map {
	if !spec.Remapped(rec.HostConfig, s.spec().Host) {
		return nil
	}
	return &userns.Map{UIDs: s.spec().Host.UIDMap, GIDs: s.spec().Host.GIDMap}
}

// rootfs says what the container's root is made of.
func (s *Service) rootfs(ctx context.Context, c *ctr, rec *Record) (*runtime.Rootfs, error) {
	dir := s.dataDir(rec.ID)
	r := &runtime.Rootfs{Upper: dir + "/" + upperName, Work: dir + "/" + workName, Volatile: rec.HostConfig.AutoRemove}
	if rec.LayerSize > 0 {
		if err := s.o.Quotas.Renew(rec.LayerSize, r.Upper); err != nil {
			return nil, fmt.Errorf("limit the writable layer of container %s: %w", rec.Name, err)
		}
	}
	if r.Volatile {
		// overlayfs refuses a layer that a volatile mount has been over: what is in
		// it may not all be on the disk. Nobody asked for that here.
		if st := c.status(); !st.neverStarted() && !st.Phase.live() {
			if err := os.RemoveAll(r.Work + "/work/incompat"); err != nil {
				return nil, err
			}
		}
	}
	img, err := s.imageOf(ctx, c, rec)
	if err != nil {
		return nil, err
	}
	chainID := ""
	if img != nil {
		chainID = img.ChainID
		if r.Lower, err = s.o.Images.Lowers(ctx, img); err != nil {
			return nil, fmt.Errorf("find the layers of image %s: %w", rec.ImageID, err)
		}
	}
	if r.Lower, err = s.stubs.over(chainID, r.Lower); err != nil {
		return nil, fmt.Errorf("root of container %s: %w", rec.Name, err)
	}
	return r, nil
}

// imageOf returns the container's image, nil if it has none.
func (s *Service) imageOf(ctx context.Context, c *ctr, rec *Record) (*Image, error) {
	if rec.ImageID == "" {
		return nil, nil
	}
	c.mu.Lock()
	img := c.image
	c.mu.Unlock()
	if img != nil {
		return img, nil
	}
	img, err := s.o.Images.Resolve(ctx, rec.ImageID, &rec.Platform)
	if errs.Is(err, errs.NotFound) && rec.ChainID != "" { // removed by force
		img, err = &Image{ID: rec.ImageID, ChainID: rec.ChainID, Platform: rec.Platform}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the image of container %s: %w", rec.Name, err)
	}
	c.mu.Lock()
	c.image = img
	c.mu.Unlock()
	return img, nil
}

// stopSignal is what asks a container to end.
func stopSignal(c *container.Config) string {
	if c.StopSignal != "" {
		return c.StopSignal
	}
	return "SIGTERM"
}
