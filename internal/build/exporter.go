package build

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/attestation"
	"github.com/moby/buildkit/exporter/containerimage"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/solver/result"
	"github.com/moby/buildkit/util/leaseutil"
	bkprogress "github.com/moby/buildkit/util/progress"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/snapshot"
)

// exporterName is what buildx turns "image" into when it talks to an engine.
const exporterName = "moby"

// mobyExporter leaves the result of a build in the engine's store.
//
// A plain image takes the short way: its layers are adopted as they lie. What
// the short way cannot express (a push, several platforms, attestations,
// compression, rewritten times) goes through BuildKit's own image exporter,
// after which the layers are adopted too.
type mobyExporter struct {
	worker *engineWorker
	image  exporter.Exporter
}

// optPreferDigest is sent by buildx to every builder named "moby".
const optPreferDigest exptypes.ImageExporterOptKey = "prefer-image-digest"

// Resolve implements exporter.Exporter.
func (e *mobyExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	rest := maps.Clone(attrs)
	if rest == nil {
		rest = map[string]string{}
	}
	names, err := parseNames(rest[string(exptypes.OptKeyName)])
	if err != nil {
		return nil, err
	}
	slow := false
	for k, v := range attrs {
		switch exptypes.ImageExporterOptKey(k) {
		case exptypes.OptKeyName, exptypes.OptKeyDanglingPrefix, exptypes.OptKeyDanglingEmptyOnly, exptypes.OptKeyUnpack,
			exptypes.OptKeyNameCanonical, exptypes.OptKeyStore:
			// Names are kept by Record, an image of ours is always "unpacked",
			// and it is what this exporter is for that it is stored.
		case exptypes.OptKeyInsecure, exptypes.OptKeyOCIArtifact, optPreferDigest:
			// Of pushes and attestations only; buildx asks docker's builder for
			// the image's digest, which is always told.
		case exptypes.OptKeyPush, exptypes.OptKeyPushByDigest, exptypes.OptKeyRewriteTimestamp, exptypes.OptKeyForceCompression:
			on, err := strconv.ParseBool(orTrue(v))
			if err != nil {
				return nil, errs.Newf(errs.Invalid, "exporter option %s: not a boolean: %q", k, v)
			}
			slow = slow || on
		default:
			slow = true
		}
	}
	delete(rest, string(optPreferDigest))
	delete(rest, string(exptypes.OptKeyDanglingPrefix))
	delete(rest, string(exptypes.OptKeyDanglingEmptyOnly))
	rest[string(exptypes.OptKeyUnpack)] = "false"
	// BuildKit's exporter must neither name what we name nor do without the
	// names where it pushes.
	if push, _ := strconv.ParseBool(orTrue2(rest, string(exptypes.OptKeyPush))); !push {
		delete(rest, string(exptypes.OptKeyName))
	}
	rest[string(exptypes.OptKeyStore)] = "false"
	inner, err := e.image.Resolve(ctx, id, rest)
	if err != nil {
		return nil, err
	}
	return &mobyInstance{ExporterInstance: inner, worker: e.worker, attrs: attrs, names: names, slow: slow}, nil
}

// orTrue: an option that is given without a value is on.
func orTrue(v string) string {
	if v == "" {
		return "true"
	}
	return v
}

func orTrue2(m map[string]string, k string) string {
	if v, ok := m[k]; ok {
		return orTrue(v)
	}
	return "false"
}

// parseNames normalises a list of references: "a,b:1" → docker.io/library/a:latest, ….
func parseNames(list string) ([]string, error) {
	var out []string
	for n := range strings.SplitSeq(list, ",") {
		if n = strings.TrimSpace(n); n == "" {
			continue
		}
		ref, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid reference format: %s: %w", n, err)
		}
		if _, ok := ref.(reference.Canonical); ok {
			return nil, errs.Newf(errs.Invalid, "refusing to create a tag with a digest reference: %s", n)
		}
		out = append(out, reference.TagNameOnly(ref).String())
	}
	return out, nil
}

type mobyInstance struct {
	exporter.ExporterInstance
	worker *engineWorker
	attrs  map[string]string
	names  []string
	slow   bool
}

// Name implements exporter.ExporterInstance.
func (i *mobyInstance) Name() string { return "exporting to image" }

// Type implements exporter.ExporterInstance.
func (i *mobyInstance) Type() string { return exporterName }

// Attrs implements exporter.ExporterInstance.
func (i *mobyInstance) Attrs() map[string]string { return i.attrs }

// Export implements exporter.ExporterInstance.
func (i *mobyInstance) Export(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (_ map[string]string, fin exporter.FinalizeFunc, _ exporter.DescriptorReference, err error) {
	ctx, done, err := leaseutil.WithLease(ctx, i.worker.LeaseManager(), leaseutil.MakeTemporary)
	if err != nil {
		return nil, nil, nil, err
	}
	release := func(ctx context.Context) error { return done(context.WithoutCancel(ctx)) }
	defer func() {
		if err != nil {
			_ = release(ctx)
		}
	}()
	var (
		img  Image
		resp map[string]string
	)
	slow := i.slow || !plain(src)
	if !slow && info.InlineCache != nil {
		// Nil unless the client asked for a cache within the image.
		inline, err := info.InlineCache(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		slow = inline != nil
	}
	if slow {
		img, resp, fin, err = i.exportSlow(ctx, src, info)
	} else {
		img, err = i.exportPlain(ctx, src)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	img.Names = i.names
	if n, ok := src.Metadata["image.name"]; ok && i.attrs[string(exptypes.OptKeyName)] == "*" {
		if img.Names, err = parseNames(string(n)); err != nil {
			return nil, nil, nil, err
		}
	}
	if err = i.worker.guard.settle(); err != nil {
		return nil, nil, nil, err
	}
	if err = i.name(ctx, img); err != nil {
		return nil, nil, nil, err
	}
	if resp == nil {
		resp = map[string]string{}
	}
	desc, err := json.Marshal(img.Manifest)
	if err != nil {
		return nil, nil, nil, err
	}
	// Clients take this for the image's id (compose recreates containers whose
	// id differs), but for the digest of what was pushed.
	resp[exptypes.ExporterImageDigestKey] = img.ID.String()
	if push, _ := strconv.ParseBool(orTrue2(i.attrs, string(exptypes.OptKeyPush))); push || img.ID == "" {
		resp[exptypes.ExporterImageDigestKey] = img.Manifest.Digest.String()
	}
	resp[exptypes.ExporterImageConfigDigestKey] = img.ID.String()
	resp[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(desc)
	if len(img.Names) > 0 {
		resp[exptypes.ExporterImageNameKey] = strings.Join(img.Names, ",")
	}
	return resp, fin, containerimage.NewDescriptorReference(img.Manifest, release), nil
}

func (i *mobyInstance) name(ctx context.Context, img Image) error {
	if len(img.Names) == 0 {
		return i.worker.record(ctx, img)
	}
	done := bkprogress.OneOff(ctx, "naming to "+strings.Join(img.Names, ", "))
	return done(i.worker.record(ctx, img))
}

// plain reports whether the result is one platform's image without anything
// beside it. Attestations that are only meant for a registry do not count.
func plain(src *exporter.Source) bool {
	for _, as := range src.Attestations {
		kept := attestation.Filter(as, nil, map[string][]byte{result.AttestationInlineOnlyKey: []byte("true")})
		if len(kept) > 0 {
			return false
		}
	}
	return len(src.Refs) <= 1
}

// exportPlain makes the image of the layers as they are.
func (i *mobyInstance) exportPlain(ctx context.Context, src *exporter.Source) (Image, error) {
	ref, p, err := single(src)
	if err != nil {
		return Image{}, err
	}
	layersDone := bkprogress.OneOff(ctx, "exporting layers")
	layers, err := i.worker.adopt(ctx, ref)
	if err := layersDone(err); err != nil {
		return Image{}, err
	}
	base := exptypes.ParseKey(src.Metadata, exptypes.ExporterImageConfigKey, p)
	config, err := imageConfig(base, layers, time.Now())
	if err != nil {
		return Image{}, err
	}
	return i.writeImage(ctx, config, layers, p)
}

// writeImage stores configuration and manifest. The layers' blobs are not
// stored: the content store makes them when they are read.
func (i *mobyInstance) writeImage(ctx context.Context, config []byte, layers []builtLayer, p *exptypes.Platform) (Image, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Config = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config)),
	}
	m.Layers = make([]ocispec.Descriptor, 0, len(layers))
	refs := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for n, l := range layers {
		m.Layers = append(m.Layers, l.Blob)
		refs["containerd.io/gc.ref.content.l."+strconv.Itoa(n)] = l.Blob.Digest.String()
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return Image{}, err
	}
	desc := ocispec.Descriptor{
		MediaType: m.MediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
	}
	if p != nil {
		desc.Platform = &p.Platform
	}
	done := bkprogress.OneOff(ctx, "writing image "+m.Config.Digest.String())
	keep := map[string]string{}
	if len(layers) > 0 {
		keep[snapshot.GCRef] = layers[len(layers)-1].ChainID.String()
	}
	err = i.worker.writeBlob(ctx, desc, manifest, refs)
	if err == nil && !i.worker.stored(ctx, m.Config.Digest, keep) {
		err = i.worker.writeBlob(ctx, m.Config, config, keep)
	}
	if err := done(err); err != nil {
		return Image{}, fmt.Errorf("write the image: %w", err)
	}
	return Image{ID: m.Config.Digest, Manifest: desc}, nil
}

// writeBlob stores a blob, leased by ctx, and sets its references, also if it is there already.
func (w *engineWorker) writeBlob(ctx context.Context, desc ocispec.Descriptor, b []byte, labels map[string]string) error {
	cs := w.ContentStore()
	ref := "skiff-export-" + desc.Digest.String()
	err := ctdcontent.WriteBlob(ctx, cs, ref, bytes.NewReader(b), desc, ctdcontent.WithLabels(labels))
	if err != nil {
		return err
	}
	info, err := cs.Info(ctx, desc.Digest)
	if err != nil {
		return err
	}
	var fields []string
	for k, v := range labels {
		if info.Labels[k] != v {
			fields = append(fields, "labels."+k)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	_, err = cs.Update(ctx, ctdcontent.Info{Digest: desc.Digest, Labels: labels}, fields...)
	return err
}

// stored reports whether the blob is there with its references.
func (w *engineWorker) stored(ctx context.Context, d digest.Digest, labels map[string]string) bool {
	info, err := w.ContentStore().Info(ctx, d)
	if err != nil {
		return false
	}
	for k, v := range labels {
		if info.Labels[k] != v {
			return false
		}
	}
	return true
}

// exportSlow lets BuildKit's image exporter write the image, then adopts the
// layers of each of its platforms.
func (i *mobyInstance) exportSlow(ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo) (Image, map[string]string, exporter.FinalizeFunc, error) {
	resp, fin, ref, err := i.ExporterInstance.Export(ctx, src, info)
	if err != nil {
		return Image{}, nil, nil, err
	}
	if ref == nil {
		return Image{}, nil, nil, errors.New("export the image: no descriptor")
	}
	// The lease in ctx covers what was written; that of ref is the same one.
	desc := ref.Descriptor()
	img := Image{Manifest: desc, ID: digest.Digest(resp[exptypes.ExporterImageConfigDigestKey])}
	all, err := i.worker.results(src)
	if err != nil {
		return Image{}, nil, nil, err
	}
	best := false // the image is one that runs here
	for n, r := range all {
		id, err := i.adoptWritten(ctx, desc, r)
		if err != nil {
			return Image{}, nil, nil, err
		}
		if id != "" && (n == 0 || r.runs && !best) {
			img.ID, best = id, r.runs
		}
	}
	return img, resp, fin, nil
}

// adoptWritten gives one platform's image in what was written its layers; ""
// for none.
func (i *mobyInstance) adoptWritten(ctx context.Context, desc ocispec.Descriptor, r platformResult) (digest.Digest, error) {
	cs := i.worker.ContentStore()
	m, err := images.Manifest(ctx, cs, desc, r.match)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil || r.ref == nil {
		return m.Config.Digest, err
	}
	layers, err := i.worker.adopt(ctx, r.ref)
	if err == nil && len(layers) > 0 {
		keep := map[string]string{snapshot.GCRef: layers[len(layers)-1].ChainID.String()}
		_, err = cs.Update(ctx, ctdcontent.Info{Digest: m.Config.Digest, Labels: keep}, "labels."+snapshot.GCRef)
	}
	return m.Config.Digest, err
}

// record keeps the image under its names.
func (w *engineWorker) record(ctx context.Context, img Image) error {
	if w.opt.Record != nil {
		return w.opt.Record(inNamespace(ctx), img)
	}
	for _, n := range img.Names {
		rec := images.Image{Name: n, Target: img.Manifest}
		if old, err := w.ImageStore.Get(ctx, n); err == nil && old.Target.Digest == rec.Target.Digest {
			continue
		}
		_, err := w.ImageStore.Update(ctx, rec)
		if errdefs.IsNotFound(err) {
			_, err = w.ImageStore.Create(ctx, rec)
		}
		if err != nil {
			return fmt.Errorf("tag %s: %w", n, err)
		}
	}
	return nil
}
