package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/content"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/oci"
)

// Load brings in the images of an archive: docker's, of any age, or an OCI
// layout; compressed or not.
func (s *Service) Load(ctx context.Context, r io.Reader, ps []ocispec.Platform, p progress.Sink) error {
	ctx, end, err := s.lease(ctx, "load")
	if err != nil {
		return diskFull(err)
	}
	defer end()
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return errs.Newf(errs.Invalid, "load: %w", err)
	}
	defer func() { _ = plain.Close() }()
	l := &loader{s: s, ctx: ctx, platforms: ps, p: p, blobs: map[string]ocispec.Descriptor{}, docs: map[string][]byte{}, links: map[string]string{}}
	err = l.read(plain)
	if err == nil {
		err = l.images()
	}
	if err != nil {
		s.kick()
	}
	return diskFull(err)
}

var loadWords = words{"Preparing", "Loading layer", "Loading layer", "Loaded layer", "Already exists"}

// maxLoadDocs bounds what is held in memory of an archive's small files.
const (
	maxLoadDocs    = 64 << 20
	maxLoadEntries = 100_000
)

type loader struct {
	s         *Service
	ctx       context.Context
	platforms []ocispec.Platform
	p         progress.Sink
	blobs     map[string]ocispec.Descriptor // by path in the archive
	docs      map[string][]byte             // small files of the layout itself
	held      int64
	links     map[string]string // old archives share layers by links
}

// read stores every blob of the archive under its digest.
func (l *loader) read(r io.Reader) error {
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return errs.Newf(errs.Invalid, "load: the archive cannot be read: %w", err)
		}
		if n > maxLoadEntries {
			return errs.Newf(errs.Invalid, "load: the archive has more than %d entries", maxLoadEntries)
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch h.Typeflag {
		case tar.TypeSymlink:
			l.links[name] = strings.TrimPrefix(path.Clean("/"+path.Join(path.Dir(name), h.Linkname)), "/")
		case tar.TypeLink:
			l.links[name] = strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		case tar.TypeReg, tar.TypeGNUSparse:
			if layer.IsSparse(h) { // nobody writes these, and a few bytes claim any size
				return errs.Newf(errs.Invalid, "load: %s is a sparse file", name)
			}
			if err := l.entry(name, h.Size, tr); err != nil {
				return err
			}
		}
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

func (l *loader) entry(name string, size int64, r io.Reader) error {
	if !strings.Contains(name, "/") && size <= oci.MaxConfig && (strings.HasSuffix(name, ".json") || name == "oci-layout" || name == "repositories") {
		if l.held += size; l.held > maxLoadDocs {
			return errs.New(errs.Invalid, "load: the archive's documents are too large")
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		l.docs[name] = b
		return nil
	}
	want, isBlob := pathDigest(name)
	if !isBlob && path.Base(name) != "layer.tar" && !strings.HasSuffix(name, ".tar") && !strings.HasSuffix(name, ".tar.gz") {
		return nil // VERSION files, and json of layers before image ids
	}
	d, err := l.store(name, want, size, r)
	if err != nil {
		return err
	}
	l.blobs[name] = d
	return nil
}

// store keeps a blob; want may be "". Reading is reported as loading a layer.
func (l *loader) store(name string, want digest.Digest, size int64, r io.Reader) (_ ocispec.Descriptor, err error) {
	id := ids.Short(want.String())
	if want == "" {
		id = ids.Short(path.Base(path.Dir(name)))
	}
	cs := l.s.store.RawContent()
	desc := ocispec.Descriptor{Digest: want, Size: size}
	head := make([]byte, 8)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return desc, err
	}
	desc.MediaType = layerType(layer.Detect(head[:n]))
	in := io.MultiReader(bytes.NewReader(head[:n]), r)
	if size > 1<<20 {
		in = &meter{r: in, id: id, status: loadWords.reading, total: size, sink: l.p}
	}
	if want != "" && l.s.hasBlob(l.ctx, want) {
		_, err = io.Copy(io.Discard, in)
		return desc, err
	}
	w, err := ctdcontent.OpenWriter(l.ctx, cs, ctdcontent.WithRef("load-"+ids.New()), sized(size))
	if err != nil {
		return desc, err
	}
	defer func() { l.s.endWriter(l.ctx, w, err) }()
	if _, err := io.CopyBuffer(writerOnly{w}, struct{ io.Reader }{in}, make([]byte, 256<<10)); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return desc, errs.Newf(errs.Invalid, "load %s: the archive ends in the middle of it", name)
		}
		return desc, fmt.Errorf("load %s: %w", name, err)
	}
	desc.Digest = w.Digest()
	if want != "" && desc.Digest != want {
		return desc, errs.Newf(errs.Invalid, "load %s: its content has digest %s", name, desc.Digest)
	}
	err = w.Commit(l.ctx, size, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		err = nil
	}
	if err != nil {
		return desc, fmt.Errorf("load %s: %w", name, err)
	}
	return desc, nil
}

func layerType(c layer.Compression) string {
	switch c {
	case layer.Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case layer.Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case layer.None, layer.Bzip2, layer.XZ:
	}
	return ocispec.MediaTypeImageLayer
}

// images finds the images in what was read.
func (l *loader) images() error {
	if b, ok := l.docs[ocispec.ImageIndexFile]; ok {
		x, err := oci.ParseIndex("", b)
		if err != nil {
			return fmt.Errorf("load: index.json: %w", err)
		}
		if l.whole(x) {
			return l.fromIndex(x)
		}
	}
	b, ok := l.docs["manifest.json"]
	if !ok {
		return errs.New(errs.Invalid, "load: the archive has neither manifest.json nor index.json: it is no image archive (a root file system is imported by `import`)")
	}
	var list []savedImage
	if err := json.Unmarshal(b, &list); err != nil {
		return errs.Newf(errs.Invalid, "load: manifest.json: %w", err)
	}
	for _, i := range list {
		if err := l.fromDocker(i); err != nil {
			return err
		}
	}
	return nil
}

// whole reports that the archive has the documents that the index names.
func (l *loader) whole(x *ocispec.Index) bool {
	return len(x.Manifests) > 0 && !slices.ContainsFunc(x.Manifests, func(d ocispec.Descriptor) bool {
		_, ok := l.blobs[blobPath(d.Digest)]
		return !ok
	})
}

func (l *loader) fromIndex(x *ocispec.Index) error {
	found := false
	for _, d := range x.Manifests {
		if oci.IsAttestation(d) {
			continue
		}
		target := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
		imgs, err := l.target(target)
		if err != nil {
			return err
		}
		if len(imgs) == 0 {
			continue
		}
		found = true
		var names []string
		if n := layoutName(d.Annotations); n != "" {
			names = []string{n}
		}
		if err := l.keep(target, imgs[0], names); err != nil {
			return err
		}
	}
	if !found {
		return errs.New(errs.NotFound, "load: the archive has no image for the requested platform")
	}
	return nil
}

// layoutName finds an image's name in its annotations.
func layoutName(a map[string]string) string {
	if n := a["io.containerd.image.name"]; n != "" {
		return n
	}
	if n := a[ocispec.AnnotationRefName]; strings.ContainsAny(n, "/:") {
		return n
	}
	return ""
}

// target loads the images of a manifest or index of the archive.
func (l *loader) target(d ocispec.Descriptor) ([]*Image, error) {
	body, err := content.ReadBlob(l.ctx, l.s.store.Content, d, oci.MaxManifest)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "load: manifest %s is not in the archive: %w", d.Digest, err)
	}
	if oci.IsManifest(d.MediaType) {
		img, err := l.manifest(d, body)
		if err != nil || img == nil {
			return nil, err
		}
		return []*Image{img}, nil
	}
	if !oci.IsIndex(d.MediaType) {
		return nil, nil
	}
	x, err := oci.ParseIndex(d.MediaType, body)
	if err != nil {
		return nil, err
	}
	var out []*Image
	labels := map[string]string{}
	for i, c := range x.Manifests {
		if _, ok := l.blobs[blobPath(c.Digest)]; !ok || oci.IsAttestation(c) || oci.IsIndex(c.MediaType) {
			continue
		}
		imgs, err := l.target(c)
		if err != nil {
			return nil, err
		}
		if len(imgs) > 0 {
			labels[fmt.Sprintf("%s%d", refManifest, i)] = c.Digest.String()
		}
		out = append(out, imgs...)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, l.s.putBlob(l.ctx, d, body, labels)
}

// manifest loads one image; nil if it is for another platform.
func (l *loader) manifest(d ocispec.Descriptor, body []byte) (*Image, error) {
	m, err := oci.ParseManifest(d.MediaType, body)
	if err != nil {
		return nil, err
	}
	if !oci.IsConfig(m.Config.MediaType) {
		return nil, nil
	}
	conf, err := content.ReadBlob(l.ctx, l.s.store.Content, m.Config, oci.MaxConfig)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "load: configuration %s is not in the archive: %w", m.Config.Digest, err)
	}
	return l.unpack(d, body, m, conf)
}

// unpack brings the layers in and stores the documents.
func (l *loader) unpack(target ocispec.Descriptor, body []byte, m *ocispec.Manifest, conf []byte) (*Image, error) {
	c, err := oci.ParseConfig(conf)
	if err != nil {
		return nil, err
	}
	if !l.wants(oci.ConfigPlatform(&c)) {
		return nil, nil
	}
	open := func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		return nil, errs.Newf(errs.Invalid, "load: layer %s is not in the archive", d.Digest)
	}
	if err := l.s.fetchLayers(l.ctx, m.Layers, c.RootFS.DiffIDs, open, loadWords, l.p); err != nil {
		return nil, err
	}
	// Uncompressed archives that the directory gives back need not be kept.
	for i, chain := range oci.ChainIDs(c.RootFS.DiffIDs) {
		if m.Layers[i].Digest == c.RootFS.DiffIDs[i] {
			if err := l.s.store.TryMade(l.ctx, chain, m.Layers[i].Digest); err != nil {
				return nil, err
			}
		}
	}
	return l.s.putImage(l.ctx, target, body, m, conf)
}

// wants reports whether images of the platform are to be loaded: those asked
// for; else what runs here.
func (l *loader) wants(p ocispec.Platform) bool {
	if len(l.platforms) == 0 {
		return p.OS == "linux"
	}
	return slices.ContainsFunc(l.platforms, func(w ocispec.Platform) bool { return oci.Matcher(&w).Match(p) })
}

// fromDocker loads an image of manifest.json, making an OCI manifest for it.
func (l *loader) fromDocker(i savedImage) error {
	conf, err := l.config(i.Config)
	if err != nil {
		return err
	}
	cdesc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(conf), Size: int64(len(conf))}
	var layers []ocispec.Descriptor
	for _, name := range i.Layers {
		d, ok := l.find(name)
		if !ok {
			return errs.Newf(errs.Invalid, "load: layer %s is not in the archive", name)
		}
		layers = append(layers, d)
	}
	target, body, err := oci.NewManifest(cdesc, layers, nil)
	if err != nil {
		return err
	}
	m, err := oci.ParseManifest(target.MediaType, body)
	if err != nil {
		return err
	}
	img, err := l.unpack(target, body, m, conf)
	if err != nil {
		return err
	}
	if img == nil {
		return errs.New(errs.NotFound, "load: the archive has no image for the requested platform")
	}
	return l.keep(target, img, i.RepoTags)
}

// find follows the links that old archives have.
func (l *loader) find(name string) (ocispec.Descriptor, bool) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for range 8 {
		if d, ok := l.blobs[name]; ok {
			return d, true
		}
		next, ok := l.links[name]
		if !ok {
			break
		}
		name = next
	}
	return ocispec.Descriptor{}, false
}

func (l *loader) config(name string) ([]byte, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if b, ok := l.docs[name]; ok {
		return b, nil
	}
	d, ok := l.find(name)
	if !ok {
		return nil, errs.Newf(errs.Invalid, "load: configuration %s is not in the archive", name)
	}
	return content.ReadBlob(l.ctx, l.s.store.Content, d, oci.MaxConfig)
}

// keep names the image and tells of it.
func (l *loader) keep(target ocispec.Descriptor, img *Image, names []string) error {
	if err := l.s.store.Sync(); err != nil {
		return err
	}
	l.s.names.Lock()
	defer l.s.names.Unlock()
	var said []string
	for _, n := range names {
		ref, err := oci.ParseTagged(n)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		if err := l.s.name(l.ctx, ref, target); err != nil {
			return err
		}
		said = append(said, "Loaded image: "+reference.FamiliarString(ref)+"\n")
	}
	if len(names) == 0 {
		if err := l.s.keepUnnamed(l.ctx, img); err != nil {
			return err
		}
		said = []string{"Loaded image ID: " + img.ID.String() + "\n"}
	}
	for _, t := range said {
		l.p.Emit(progress.Event{Stream: t})
	}
	l.s.event(events.ActionLoad, img.ID.String(), img.ID.String(), img)
	return nil
}
