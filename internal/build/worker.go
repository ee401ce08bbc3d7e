package build

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/containerimage"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/worker/base"
)

// buildkitVersion is what is told to buildx: that of the linked module, which
// a library does not know by itself.
const buildkitVersion = "v0.34.2"

// engineWorker is BuildKit's worker with the engine's exporter, and with base
// images looked for in the engine's store first.
type engineWorker struct {
	*base.Worker
	opt    Options
	guard  *guard
	leases leases.Manager
	ended  atomic.Bool
}

// GCPolicy implements worker.Worker. BuildKit collects a second after a build,
// which may be after the end.
func (w *engineWorker) GCPolicy() []client.PruneInfo {
	if w.ended.Load() {
		return nil
	}
	return w.Worker.GCPolicy()
}

// Prune implements worker.Worker.
func (w *engineWorker) Prune(ctx context.Context, ch chan client.UsageInfo, o ...client.PruneInfo) (err error) {
	done, err := w.guard.enter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return w.Worker.Prune(ctx, ch, o...)
}

// DiskUsage implements worker.Worker: sizes that are computed are recorded.
func (w *engineWorker) DiskUsage(ctx context.Context, o client.DiskUsageInfo) (_ []*client.UsageInfo, err error) {
	done, err := w.guard.enter()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return w.Worker.DiskUsage(ctx, o)
}

// Exporter implements worker.Worker.
func (w *engineWorker) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	if name != exporterName {
		return w.Worker.Exporter(name, sm)
	}
	image, err := w.Worker.Exporter("image", sm)
	if err != nil {
		return nil, err
	}
	return &mobyExporter{worker: w, image: image}, nil
}

// ResolveSourceMetadata implements worker.Worker.
func (w *engineWorker) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, sm *session.Manager, job solver.JobContext) (*sourceresolver.MetaResponse, error) {
	if opt.ImageOpt != nil {
		img := *opt.ImageOpt
		if img.ResolveMode == "" || img.ResolveMode == pb.AttrImageResolveModeDefault {
			img.ResolveMode = pb.AttrImageResolveModePreferLocal
		}
		if ref, ok := imageOf(op.Identifier); ok && img.ResolveMode == pb.AttrImageResolveModePreferLocal &&
			foreign(ctx, w.ImageStore, w.ContentStore(), ref, img.Platform) {
			img.ResolveMode = pb.AttrImageResolveModeForcePull
		}
		opt.ImageOpt = &img
	}
	return w.Worker.ResolveSourceMetadata(ctx, op, opt, sm, job)
}

// localFirst makes docker's habit the default: an image that is here is used
// without asking its registry; --pull asks for more.
type localFirst struct{ *containerimage.Source }

// Identifier implements source.Source.
func (s localFirst) Identifier(scheme, ref string, attrs map[string]string, p *pb.Platform) (source.Identifier, error) {
	id, err := s.Source.Identifier(scheme, ref, attrs, p)
	if err != nil {
		return nil, err
	}
	if img, ok := id.(*containerimage.ImageIdentifier); ok && img.ResolveMode == resolver.ResolveModeDefault {
		img.ResolveMode = resolver.ResolveModePreferLocal
	}
	return id, nil
}
