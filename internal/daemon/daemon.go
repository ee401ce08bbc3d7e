package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-containers/skiff/internal/apiserver"
	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/daemon/shimbin"
	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/engine/events"
	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/engine/networks"
	"github.com/skiff-containers/skiff/internal/engine/system"
	"github.com/skiff-containers/skiff/internal/engine/volumes"
	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/kit/logbridge"
	"github.com/skiff-containers/skiff/internal/kit/version"
	"github.com/skiff-containers/skiff/internal/meta"
	"github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/registryd"
	"github.com/skiff-containers/skiff/internal/remote"
	"github.com/skiff-containers/skiff/internal/runtime/criu"
	"github.com/skiff-containers/skiff/internal/runtime/shim"
	"github.com/skiff-containers/skiff/internal/runtime/spec/cdi"
	"github.com/skiff-containers/skiff/internal/runtime/spec/hostfacts"
	"github.com/skiff-containers/skiff/internal/snapshot"
	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/quota"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// run is the daemon's life: build every room, serve until ctx ends, close in
// reverse. Containers go on.
func run(ctx context.Context, c *Config, p process, log *slog.Logger) error {
	if os.Geteuid() != 0 {
		return errs.New(errs.Denied, "skiffd needs to be started as root")
	}
	logbridge.Redirect(log)
	var rooms cleanup.Stack
	defer rooms.Run()
	if err := os.MkdirAll(c.ExecRoot, 0o711); err != nil { //nolint:gosec // clients of the group must reach the socket
		return err
	}
	release, err := lockPidfile(c.Pidfile)
	if err != nil {
		return err
	}
	rooms.Push(release)
	dumpOnSignal(ctx, c.ExecRoot, log)
	if err := c.exportProxies(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.DataRoot, 0o710); err != nil {
		return err
	}
	if err := checkDataRoot(c.DataRoot); err != nil {
		return err
	}
	if err := ownTmp(c.DataRoot); err != nil {
		return err
	}

	d := &daemon{c: c, p: p, log: log, rooms: &rooms}
	d.conf.Store(c)
	backends, err := d.build(ctx)
	if err != nil {
		return err
	}
	srv := apiserver.New(apiserver.Options{Backends: backends, Version: version.Version, Experimental: c.Experimental, MinAPI: c.MinAPI, Log: log, Fetch: fetchURL})
	ls, err := c.listen()
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "skiffd serves", "hosts", c.Hosts, "version", version.Version, "commit", version.Commit)
	d.containers.Resume(ctx)
	onEach(ctx, p.hup, func() { d.reload(ctx) })
	p.manager.tell(log, managerReady)
	return d.serve(ctx, srv, ls)
}

// daemon holds the rooms while they are built and serve.
type daemon struct {
	c     *Config                // at start
	conf  atomic.Pointer[Config] // in force: see reload
	p     process
	id    string // of the installation
	log   *slog.Logger
	rooms *cleanup.Stack

	events     *events.Bus
	db         *meta.DB
	store      *snapshot.Store
	remote     *remote.Client
	shim       *shim.Client
	networks   *network.Manager
	images     *images.Service
	volumes    *volumes.Service
	containers *containers.Service
	builds     *builds.Service
	system     *system.Service
	registry   *registryd.Server
	quotas     quota.Projects // of containers and volumes: one gives out the ids
	apparmor   string         // the default profile, if the kernel has it
	users      *userns.Map    // of containers and build steps; nil: the host's
	mapsMemory bool           // see mapsMemory
}

// build makes the rooms from the ground up. What depends on nothing but the
// host is made side by side.
func (d *daemon) build(ctx context.Context) (apiserver.Backends, error) {
	var none apiserver.Backends
	var err error
	d.events = events.New()
	if d.db, err = meta.Open(filepath.Join(d.c.DataRoot, "meta.db")); err != nil {
		return none, err
	}
	d.rooms.Push(d.closer("database", d.db.Close))

	if d.users, err = d.remap(ctx); err != nil {
		return none, err
	}
	if d.mapsMemory, err = mapsMemory(d.users); err != nil {
		return none, err
	}
	var side errgroup.Group
	side.Go(func() (err error) { d.store, err = d.openStore(ctx); return err })
	side.Go(func() (err error) { d.shim, err = d.ensureShim(ctx); return err })
	side.Go(func() (err error) { d.networks, err = d.openNetworks(ctx); return err })
	side.Go(func() error { d.apparmor = loadApparmor(ctx, d.log); return nil })
	err = side.Wait()
	if d.store != nil {
		d.rooms.Push(d.closer("store", d.store.Close))
	}
	if d.networks != nil {
		d.rooms.Push(d.closer("networks", d.networks.Close))
	}
	if err != nil {
		return none, err
	}
	nets := &netContainers{}
	if err := d.openImages(ctx, nets); err != nil {
		return none, err
	}
	if d.volumes, err = d.openVolumes(); err != nil {
		return none, err
	}
	if d.containers, err = d.openContainers(ctx); err != nil {
		return none, err
	}
	nets.s = d.containers
	if err := d.containers.Restore(ctx); err != nil {
		return none, err
	}
	if d.containers.Complete() {
		if err := d.volumes.Sweep(ctx, d.containers.Exists); err != nil {
			return none, fmt.Errorf("clean up volumes: %w", err)
		}
	}
	if err := d.networks.Reconcile(ctx, d.containers.Complete()); err != nil {
		return none, fmt.Errorf("clean up networks: %w", err)
	}
	if d.builds, err = d.openBuilds(ctx); err != nil {
		return none, err
	}
	if err := d.openRegistry(); err != nil {
		return none, err
	}
	return d.backends(ctx, nets)
}

// closer returns f as an undo step that logs its failure.
func (d *daemon) closer(what string, f func() error) func() {
	return func() {
		if err := f(); err != nil {
			d.log.Warn("cannot close", "room", what, "err", err) //nolint:sloglint // there is no request
		}
	}
}

func (d *daemon) openStore(ctx context.Context) (*snapshot.Store, error) {
	return snapshot.Open(ctx, snapshot.Options{Root: filepath.Join(d.c.DataRoot, "store"), Log: d.log})
}

func (d *daemon) ensureShim(ctx context.Context) (*shim.Client, error) {
	o := shim.Options{RunDir: filepath.Join(d.c.ExecRoot, "shim"), Binary: shimbin.Binary(), Path: d.c.ShimBinary, Log: d.log}
	if o.Path != "" {
		o.Binary = nil
	}
	if o.Path == "" && o.Binary == nil {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		o.Path = filepath.Join(filepath.Dir(self), "skiff-shim")
		if _, err := os.Stat(o.Path); err != nil {
			return nil, errs.Newf(errs.Invalid, "this skiffd carries no skiff-shim (`make build` makes one that does), and there is none beside it: %w", err)
		}
	}
	return shim.Ensure(ctx, o)
}

func (d *daemon) openNetworks(ctx context.Context) (*network.Manager, error) {
	tab, err := meta.NewTable[network.Record](d.db, "networks")
	if err != nil {
		return nil, err
	}
	o := network.Options{
		RunDir: filepath.Join(d.c.ExecRoot, "network"), Table: tab, Events: d.events, Log: d.log,
		DefaultBridgeName: d.c.bridge(), NoDefault: d.c.noBridge(), MTU: d.c.MTU, NoICC: !d.c.ICC,
		IPv6: d.c.IPv6, Defaults: d.c.NetworkOpts, HostGateways: d.c.hostGateways(), Users: d.users,
		AllowDirect: d.c.AllowDirect, NoForward: !d.c.IPForward, NoForwardDrop: d.c.NoForwardDrop, NoMasquerade: !d.c.IPMasq, NoProxy: !d.c.UserlandProxy,
	}
	// All of these were checked by Finish.
	o.BIP6, _ = netip.ParsePrefix(d.c.BIP6)
	o.FixedCIDR, _ = netip.ParsePrefix(d.c.FixedCIDR)
	o.DefaultGateway, _ = netip.ParseAddr(d.c.DefaultGateway)
	o.DefaultGateway6, _ = netip.ParseAddr(d.c.DefaultGateway6)
	if d.c.FixedCIDR6 != "" {
		o.FixedCIDR6, _ = netip.ParsePrefix(d.c.FixedCIDR6) // checked by Finish
	}
	if d.c.BIP != "" {
		o.BIP, _ = netip.ParsePrefix(d.c.BIP) // checked by Finish
	}
	if o.Pools, err = d.c.pools(); err != nil {
		return nil, err
	}
	return network.New(ctx, o)
}

// dnsServers and publishAddr were checked by Finish.
func (c *Config) dnsServers() []netip.Addr {
	var out []netip.Addr
	for _, s := range c.DNS {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// publishAddr is zero for "every address".
func (c *Config) publishAddr() netip.Addr {
	a, err := netip.ParseAddr(c.HostBindIP)
	if err != nil || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// pools parses --default-address-pool base=10.10.0.0/16,size=24.
func (c *Config) pools() ([]network.Pool, error) {
	var out []network.Pool
	for _, s := range c.Pools {
		var p network.Pool
		for _, part := range strings.Split(s, ",") {
			k, v, _ := strings.Cut(part, "=")
			var err error
			switch k {
			case "base":
				p.Base, err = netip.ParsePrefix(v)
			case "size":
				_, err = fmt.Sscanf(v, "%d", &p.Size)
			default:
				err = fmt.Errorf("unknown key %q", k)
			}
			if err != nil {
				return nil, errs.Newf(errs.Invalid, "invalid --default-address-pool %q: %w", s, err)
			}
		}
		if most := p.Base.Addr().BitLen() - 2; !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > most {
			return nil, errs.Newf(errs.Invalid, "invalid --default-address-pool %q: want base=ADDRESS/BITS,size=BITS with a size from the base's to %d", s, max(most, 0))
		}
		out = append(out, p)
	}
	return out, nil
}

func (d *daemon) openImages(ctx context.Context, users *netContainers) error {
	var err error
	d.remote, err = remote.New(remote.Options{
		Settings: d.c.registries(), CertsDir: "/etc/docker/certs.d",
		UserAgent: "skiff/" + version.Version, Log: d.log,
	})
	if err != nil {
		return err
	}
	d.images, err = images.New(ctx, images.Options{
		Store: d.store, Remote: d.remote, Publish: d.events.Publish, Log: d.log,
		Limits: d.c.transferLimits(),
		InUse: func(imageID string) []images.ContainerRef {
			if users.s == nil {
				return nil
			}
			var out []images.ContainerRef
			for _, u := range users.s.UsersOfImage(imageID) {
				out = append(out, images.ContainerRef{ID: u.ID, Name: u.Name, Images: u.Images, Running: u.Running})
			}
			return out
		},
		UseCounts: func() map[string]int {
			if users.s == nil {
				return nil
			}
			return users.s.ImageUseCounts()
		},
	})
	if err == nil {
		d.rooms.Push(d.images.Close)
	}
	return err
}

func (d *daemon) openVolumes() (*volumes.Service, error) {
	tab, err := meta.NewTable[volumes.Record](d.db, "volumes")
	if err != nil {
		return nil, err
	}
	v, err := volumes.New(volumes.Options{
		Dir: filepath.Join(d.c.DataRoot, "volumes"), Table: tab, Events: d.events, Log: d.log, Quotas: &d.quotas, MapsMemory: d.mapsMemory,
	})
	if err == nil {
		d.rooms.Push(v.Close)
	}
	return v, err
}

func (d *daemon) openContainers(ctx context.Context) (*containers.Service, error) {
	tab, err := meta.NewTable[containers.Record](d.db, "containers")
	if err != nil {
		return nil, err
	}
	facts, err := hostfacts.Gather()
	if err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	facts.ApparmorDefault, facts.Systemd = d.apparmor, d.c.cgroupDriver() == driverSystemd
	facts.CDI = cdi.New(d.c.CDISpecDirs)
	if d.users != nil {
		facts.UIDMap, facts.GIDMap = d.users.UIDs, d.users.GIDs
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	size, err := d.c.layerSize()
	if err == nil && size > 0 {
		err = d.quotas.Check(d.c.DataRoot)
	}
	if err != nil {
		return nil, fmt.Errorf("--storage-opt overlay2.size: %w", err)
	}
	s, err := containers.New(containers.Options{
		DataRoot: d.c.DataRoot, ExecRoot: d.c.ExecRoot, Log: d.log,
		Runtime: d.shim, CRIU: criu.Find, Networks: ctrNetworks{d.networks}, Images: ctrImages{d.images}, Volumes: ctrVolumes{d.volumes},
		Logs: ctrLogs{d.log}, Layers: ctrLayers{}, Events: d.events, Cgroups: containers.NewCgroups(groups), Records: tab,
		Quotas: &d.quotas, LayerSize: size,
		DNS: d.c.dnsServers(), DNSSearch: d.c.DNSSearch, DNSOptions: d.c.DNSOptions, PublishAddr: d.c.publishAddr(), NoBridge: d.c.noBridge(),
		DefaultLog: container.LogConfig{Type: d.c.LogDriver, Config: d.c.LogOpts},
		Live: d.c.live(containers.Live{Spec: containers.SpecDefaults{
			Host: facts, CgroupParent: d.c.CgroupParent, Ulimits: d.c.Ulimits,
			SeccompProfile: d.c.seccomp, NoNewPrivileges: d.c.NoNewPrivs, Init: d.c.Init,
			RealtimePeriod: d.c.RealtimePeriod, RealtimeRuntime: d.c.RealtimeRuntime,
		}}),
	})
	if err != nil {
		return nil, err
	}
	d.rooms.Push(func() {
		const grace = 15 * time.Second
		cctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), grace, errors.New("containers' background work went on for too long"))
		defer cancel()
		d.closer("containers", func() error { return s.Close(cctx) })()
	})
	return s, nil
}

func (d *daemon) openBuilds(ctx context.Context) (*builds.Service, error) {
	lctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	d.rooms.Push(func() { cancel(errors.New("the daemon stops")) })
	launcher, err := newStepLauncher(lctx, d.shim, steps{d.users, d.mapsMemory}, d.log)
	if err != nil {
		return nil, err
	}
	gateway := d.gateway()
	cache, err := d.c.cacheLimits()
	if err != nil {
		return nil, err
	}
	b, err := build.New(build.Options{
		Root: filepath.Join(d.c.DataRoot, "build"), StateDir: filepath.Join(d.c.ExecRoot, "build"),
		Store: d.store, Launcher: launcher, Networks: stepNetworks{d.networks, d.containers, d.users, d.c.noBridge()},
		RegistryHosts: d.remote.Hosts(nil), CgroupParent: d.c.stepCgroups(), HostGateway: gateway, HostNetwork: d.c.Builder.hostNetwork(), Cache: cache,
		Version: version.Version, Log: d.log, ApparmorProfile: d.apparmor,
		Record: func(ctx context.Context, i build.Image) error { return d.images.Record(ctx, i.Manifest, i.Names) },
	})
	if err != nil {
		return nil, err
	}
	d.rooms.Push(d.closer("builder", b.Close))
	return builds.New(b, builds.Config{Tmp: d.store.Tmp(), HostGateway: gateway, Events: d.events, Log: d.log}), nil
}

// gateway is what "host-gateway" means to builds: the default bridge's address
// unless another is configured.
func (d *daemon) gateway() net.IP {
	if ips := d.c.hostGateways(); len(ips) > 0 {
		return ips[0].AsSlice()
	}
	n, err := d.networks.Inspect("bridge")
	if err != nil || len(n.IPAM.Config) == 0 {
		return nil
	}
	return n.IPAM.Config[0].Gateway.AsSlice()
}

func (d *daemon) openRegistry() error {
	if d.c.RegistryAddr == "" {
		return nil
	}
	r, err := registryd.New(registryd.Options{
		Dir: d.c.RegistryDir, Addr: d.c.RegistryAddr, Cert: d.c.RegistryCert, Key: d.c.RegistryKey,
		Htpasswd: d.c.RegistryHtpasswd, Log: d.log,
	})
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	d.registry = r
	d.rooms.Push(d.closer("registry", r.Close))
	return nil
}

func (d *daemon) backends(ctx context.Context, nets *netContainers) (apiserver.Backends, error) {
	var err error
	if d.id, err = d.installationID(); err != nil {
		return apiserver.Backends{}, err
	}
	d.system = system.New(d.systemConfig(d.c), system.Deps{
		Containers: sysContainers{d.containers}, Images: sysImages{d.images}, Volumes: d.volumes, BuildCache: d.builds,
		Devices: cdi.New(d.c.CDISpecDirs), Events: d.events, Log: d.log,
	})
	return apiserver.Backends{
		Containers: d.containers, Images: d.images, Networks: networks.New(networks.Options{Manager: d.networks, Containers: nets, Events: d.events, Log: d.log}),
		Volumes: d.volumes, Builds: d.builds, System: d.system,
	}, nil
}

// installationID stays the same for as long as the data root lives.
func (d *daemon) installationID() (string, error) {
	tab, err := meta.NewTable[string](d.db, "daemon")
	if err != nil {
		return "", err
	}
	id, err := tab.Get("id")
	if errs.Is(err, errs.NotFound) {
		id = ids.New()
		err = tab.Put("id", id)
	}
	return id, err
}
