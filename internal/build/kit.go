package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/cache/remotecache"
	"github.com/moby/buildkit/cache/remotecache/inline"
	"github.com/moby/buildkit/cache/remotecache/local"
	"github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	ctdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/bklog"
	"github.com/moby/buildkit/util/db"
	"github.com/moby/buildkit/util/disk"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	wlabel "github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// kit is a running BuildKit.
type kit struct {
	sessions *session.Manager
	control  *control.Controller
	worker   *engineWorker
	grpc     *grpc.Server
	exec     *executor
	guard    *guard
	history  *history
	entry    *logrus.Entry
	life     context.Context // of the builds that run; ended by end
	end      context.CancelCauseFunc
	stop     chan struct{} // closed to let the history finish
}

// startKit wires BuildKit to the engine's parts.
func startKit(ctx context.Context, opt Options) (_ *kit, err error) {
	var undo cleanup.Stack
	defer undo.Run()

	entry := newEntry(opt.Log.With("from", "buildkit"))
	ctx = bklog.WithLogger(ctx, entry)
	sm, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	exec, err := newExecutor(opt)
	if err != nil {
		return nil, err
	}
	g, lost, err := newGuard(opt.Root, opt.Store.Tmp(), opt.Log)
	if err != nil {
		return nil, err
	}
	if lost {
		opt.Log.WarnContext(ctx, "the machine went down during a build: the build cache is dropped")
		if err := dropCache(ctx, opt); err != nil {
			return nil, err
		}
		if err := g.forget(); err != nil {
			return nil, err
		}
	}
	w, err := newWorker(ctx, opt, exec, g, &undo)
	if err != nil {
		return nil, err
	}
	wc := &worker.Controller{}
	if err := wc.Add(w); err != nil {
		return nil, err
	}
	fronts, err := frontends(wc)
	if err != nil {
		return nil, err
	}
	cacheStore, err := bboltcachestorage.NewStore(filepath.Join(opt.Root, "cache.db"))
	if err != nil {
		return nil, err
	}
	undo.Push(func() { _ = cacheStore.Close() })
	hist, err := openHistory(ctx, opt.Root)
	if err != nil {
		return nil, err
	}
	undo.Push(func() { _ = hist.records.Close(); _ = hist.close() })
	cs, lm := hist.stores(w.ContentStore().Store, w.leases)

	exporters, importers := remoteCaches(sm, w, opt)
	stop := make(chan struct{})
	maxEntries := int64(historyMax)
	ctl, err := control.NewController(control.Opt{
		SessionManager:            sm,
		WorkerController:          wc,
		Frontends:                 fronts,
		ResolveCacheExporterFuncs: exporters,
		ResolveCacheImporterFuncs: importers,
		CacheManager:              solver.NewCacheManager(ctx, "local", cacheStore, worker.NewCacheResultStorage(wc)),
		Entitlements:              allowed(opt),
		HistoryDB:                 hist.records,
		HistoryConfig:             &config.HistoryConfig{MaxAge: config.Duration{Duration: historyKeep}, MaxEntries: &maxEntries},
		CacheStore:                cacheStore,
		LeaseManager:              lm,
		ContentStore:              cs,
		GarbageCollect:            hist.collect,
		GracefulStop:              stop,
	})
	if err != nil {
		return nil, err
	}
	undo.Release()
	k := &kit{sessions: sm, control: ctl, worker: w, exec: exec, guard: g, history: hist, entry: entry, stop: stop}
	k.life, k.end = context.WithCancelCause(ctx)
	k.grpc = newGRPCServer(ctl, entry)
	return k, nil
}

// newWorker makes the one worker; what it opens is closed by undo or, later,
// by the controller.
func newWorker(ctx context.Context, opt Options, exec *executor, g *guard, undo *cleanup.Stack) (*engineWorker, error) {
	id, err := base.ID(opt.Root)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	md, err := metadata.NewStore(filepath.Join(opt.Root, "metadata_v2.db"))
	if err != nil {
		return nil, err
	}
	undo.Push(func() { _ = md.Close() })
	if g.flush, err = unsynced(md.DB()); err != nil {
		return nil, err
	}

	st := opt.Store
	cs := ctdsnapshot.NewContentStore(layerContent{st.Content}, snapshot.Namespace)
	sn, lm := st.ForBuildKit()
	policy, err := gcPolicy(opt)
	if err != nil {
		return nil, err
	}
	var parallel *semaphore.Weighted
	if opt.MaxParallel > 0 {
		parallel = semaphore.NewWeighted(int64(opt.MaxParallel))
	}
	labels := map[string]string{
		wlabel.Executor:       "skiff",
		wlabel.Snapshotter:    snapshot.Name,
		wlabel.Hostname:       host,
		wlabel.Network:        "bridge",
		wlabel.OCIProcessMode: "sandbox",
		wlabel.SELinuxEnabled: "false",
		"org.mobyproject.buildkit.worker.moby.host-gateway-ip": opt.HostGateway.String(),
	}
	if opt.HostGateway == nil {
		delete(labels, "org.mobyproject.buildkit.worker.moby.host-gateway-ip")
	}
	w, err := base.NewWorker(ctx, base.WorkerOpt{
		ID:               id,
		Root:             opt.Root,
		Labels:           labels,
		Platforms:        []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		GCPolicy:         policy,
		BuildkitVersion:  client.BuildkitVersion{Package: "github.com/moby/buildkit", Version: buildkitVersion, Revision: opt.Version},
		NetworkProviders: map[pb.NetMode]network.Provider{}, // the executor knows the networks
		Executor:         exec,
		Snapshotter:      ctdsnapshot.NewSnapshotter(snapshot.Name, claims{sn, g}, snapshot.Namespace, nil),
		ContentStore:     cs,
		Applier:          apply.NewFileSystemApplier(cs),
		Differ:           walking.NewWalkingDiff(cs),
		ImageStore:       namespacedImages{st.Images},
		RegistryHosts:    opt.RegistryHosts,
		LeaseManager:     leaseutil.WithNamespace(lm, snapshot.Namespace),
		GarbageCollect:   collector(st),
		ParallelismSem:   parallel,
		MetadataStore:    md,
		MountPoolRoot:    filepath.Join(opt.StateDir, "mounts"),
	})
	if err != nil {
		return nil, err
	}
	w.SourceManager.Register(localFirst{w.ImageSource})
	return &engineWorker{Worker: w, opt: opt, guard: g, leases: lm}, nil
}

// unsynced makes a database leave writing to the kernel; flush writes at once.
func unsynced(t db.Transactor) (flush func() error, err error) {
	var bdb *bolt.DB
	err = t.Update(func(tx *bolt.Tx) error {
		bdb = tx.DB()
		bdb.NoSync = true // no other transaction writes now
		return nil
	})
	return func() error { return bdb.Sync() }, err
}

// dropCache forgets all of BuildKit's records, and the references that keep
// its snapshots.
func dropCache(ctx context.Context, opt Options) error {
	for _, f := range []string{"metadata_v2.db", "cache.db", "history.db", "history-refs.db"} {
		if err := os.Remove(filepath.Join(opt.Root, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(opt.Root, "history")); err != nil {
		return err
	}
	ctx = inNamespace(ctx)
	// BuildKit's leases, and only they, are flat.
	ls, err := opt.Store.Leases.List(ctx, `labels."containerd.io/gc.flat"`)
	if err != nil {
		return err
	}
	for _, l := range ls {
		if err := opt.Store.Leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func frontends(wc *worker.Controller) (map[string]frontend.Frontend, error) {
	gw, err := gateway.NewGatewayFrontend(wc.Infos(), nil)
	if err != nil {
		return nil, err
	}
	return map[string]frontend.Frontend{
		"dockerfile.v0": forwarder.NewGatewayForwarder(wc.Infos(), buildDockerfile),
		"gateway.v0":    gw,
	}, nil
}

func remoteCaches(sm *session.Manager, w *engineWorker, opt Options) (map[string]remotecache.ResolveCacheExporterFunc, map[string]remotecache.ResolveCacheImporterFunc) {
	exporters := map[string]remotecache.ResolveCacheExporterFunc{
		"registry": registry.ResolveCacheExporterFunc(sm, opt.RegistryHosts),
		"local":    local.ResolveCacheExporterFunc(sm),
		"inline":   inline.ResolveCacheExporterFunc(),
	}
	importers := map[string]remotecache.ResolveCacheImporterFunc{
		"registry": registry.ResolveCacheImporterFunc(sm, w.ContentStore(), opt.RegistryHosts),
		"local":    local.ResolveCacheImporterFunc(sm),
	}
	return exporters, importers
}

// allowed lists the entitlements that a build may ask for.
func allowed(opt Options) []string {
	var out []string
	if opt.Insecure {
		out = append(out, string(entitlements.EntitlementSecurityInsecure))
	}
	if opt.HostNetwork {
		out = append(out, string(entitlements.EntitlementNetworkHost))
	}
	return out
}

// gcPolicy bounds the build cache: BuildKit's rules, with our limits.
func gcPolicy(opt Options) ([]client.PruneInfo, error) {
	if opt.Cache.Disabled {
		return nil, nil
	}
	var out []client.PruneInfo
	for _, r := range opt.Cache.Policy {
		out = append(out, client.PruneInfo{
			Filter: r.Filters, All: r.All, KeepDuration: r.KeepDuration,
			ReservedSpace: r.ReservedSpace, MaxUsedSpace: r.MaxUsedSpace, MinFreeSpace: r.MinFreeSpace,
		})
	}
	if len(out) > 0 {
		return out, nil
	}
	st, err := disk.GetDiskStat(opt.Root)
	if err != nil {
		return nil, err
	}
	var cfg config.GCConfig
	space := func(n int64) config.DiskSpace { return config.DiskSpace{Bytes: n} }
	cfg.GCReservedSpace, cfg.GCMaxUsedSpace, cfg.GCMinFreeSpace =
		space(opt.Cache.ReservedSpace), space(opt.Cache.MaxUsedSpace), space(opt.Cache.MinFreeSpace)
	for _, r := range config.DefaultGCPolicy(cfg, st) {
		out = append(out, client.PruneInfo{
			Filter:        r.Filters,
			All:           r.All,
			KeepDuration:  r.KeepDuration.Duration,
			ReservedSpace: r.ReservedSpace.AsBytes(st),
			MaxUsedSpace:  r.MaxUsedSpace.AsBytes(st),
			MinFreeSpace:  r.MinFreeSpace.AsBytes(st),
		})
	}
	return out, nil
}

// closeGrace is how long cancelled builds may take to end.
const closeGrace = 5 * time.Second

// close ends everything; running solves see their context end.
func (k *kit) close() error {
	k.worker.ended.Store(true)
	k.end(errs.New(errs.Unavailable, "the builder is closed"))
	close(k.stop)
	done := make(chan struct{})
	go func() { k.grpc.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Second):
		k.grpc.Stop()
	}
	// Databases are not taken away from builds that are about to end.
	for end := time.Now().Add(closeGrace); k.guard.busy() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(fmtErr("sync the build cache", k.guard.close()), fmtErr("close the builder", k.control.Close()), k.history.close(), k.exec.close())
}

func fmtErr(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
