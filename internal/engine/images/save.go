package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/content"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/oci"
)

// saved is an image of docker's manifest.json.
type savedImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Save writes images as one archive that is docker's and an OCI layout at once.
func (s *Service) Save(ctx context.Context, refs []string, ps []ocispec.Platform, w io.Writer) error {
	ctx, end, err := s.lease(ctx, "save") // what is being read must not be collected
	if err != nil {
		return err
	}
	defer end()
	sv := &saver{s: s, ctx: ctx, tw: tar.NewWriter(w), wrote: map[string]bool{}, images: map[digest.Digest]*savedImage{}, repos: map[string]map[string]string{}}
	// Everything is looked up before the first byte: then an unknown name is
	// an error, and not a broken archive.
	var plan []savePlan
	for _, ref := range refs {
		more, err := s.planSave(ctx, ref, ps)
		if err != nil {
			return err
		}
		plan = append(plan, more...)
	}
	for _, x := range plan {
		if err := sv.named(x); err != nil {
			return fmt.Errorf("save %s: %w", x.imgs[0].ID, err)
		}
		s.event(events.ActionSave, x.imgs[0].ID.String(), x.imgs[0].ID.String(), x.imgs[0])
	}
	return sv.finish()
}

// savePlan is what is saved under one name.
type savePlan struct {
	imgs []*Image              // one, or one a platform
	ref  reference.NamedTagged // nil: by id
}

func (s *Service) planSave(ctx context.Context, ref string, ps []ocispec.Platform) ([]savePlan, error) {
	// A repository without a tag means all its tags.
	if named, err := reference.ParseNormalizedNamed(ref); err == nil && reference.IsNameOnly(named) {
		recs, err := s.records(ctx)
		if err != nil {
			return nil, err
		}
		var out []savePlan
		for _, r := range recs {
			t, ok := r.tag()
			if !ok || t.Name() != named.Name() {
				continue
			}
			imgs, err := each(ps, func(p *ocispec.Platform) (*Image, error) {
				return s.choose(ctx, reference.FamiliarString(t), r.Target, p)
			})
			if err != nil {
				return nil, err
			}
			out = append(out, savePlan{imgs, t})
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	var t reference.NamedTagged
	imgs, err := each(ps, func(p *ocispec.Platform) (*Image, error) {
		img, named, err := s.resolve(ctx, ref, p)
		t, _ = named.(reference.NamedTagged)
		return img, err
	})
	if err != nil {
		return nil, err
	}
	return []savePlan{{imgs, t}}, nil
}

// each finds the images for platforms, each image once; without a platform, the
// one that is meant then.
func each(ps []ocispec.Platform, find func(p *ocispec.Platform) (*Image, error)) (out []*Image, err error) {
	if len(ps) == 0 {
		img, err := find(nil)
		return []*Image{img}, err
	}
	for i := range ps {
		img, err := find(&ps[i])
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(o *Image) bool { return o.Target.Digest == img.Target.Digest }) {
			out = append(out, img)
		}
	}
	return out, nil
}

type saver struct {
	s      *Service
	ctx    context.Context
	tw     *tar.Writer
	wrote  map[string]bool
	order  []digest.Digest
	images map[digest.Digest]*savedImage
	index  []ocispec.Descriptor
	repos  map[string]map[string]string // name → tag → topmost layer, for old readers
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func (v *saver) header(name string, size int64) error {
	for i := range name {
		if name[i] != '/' || v.wrote[name[:i+1]] {
			continue
		}
		v.wrote[name[:i+1]] = true
		if err := v.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name[:i+1], Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	return v.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}

func (v *saver) file(name string, body []byte) error {
	if v.wrote[name] {
		return nil
	}
	v.wrote[name] = true
	if err := v.header(name, int64(len(body))); err != nil {
		return err
	}
	_, err := v.tw.Write(body)
	return err
}

func (v *saver) blob(d ocispec.Descriptor) error {
	name := blobPath(d.Digest)
	if v.wrote[name] {
		return nil
	}
	v.wrote[name] = true
	if err := v.header(name, d.Size); err != nil {
		return err
	}
	_, err := v.s.store.Content.WriteTo(v.ctx, d.Digest, v.tw)
	return err
}

// layers says how each layer can be written: as the manifest has it, or else by
// the archive that can be made.
func (v *saver) layers(m *ocispec.Manifest, img *Image) (_ []ocispec.Descriptor, same bool, err error) {
	if len(m.Layers) != len(img.DiffIDs) {
		return nil, false, errs.Newf(errs.Invalid, "%d layers, %d diff ids", len(m.Layers), len(img.DiffIDs))
	}
	out := slices.Clone(m.Layers)
	same = true
	for i, l := range out {
		v.s.hasBlob(v.ctx, l.Digest) // leased: it is read later
		if info, err := v.s.store.Content.Info(v.ctx, l.Digest); err == nil {
			out[i].Size = info.Size
			continue
		}
		v.s.hasBlob(v.ctx, img.DiffIDs[i])
		info, err := v.s.store.Content.Info(v.ctx, img.DiffIDs[i])
		if err != nil {
			return nil, false, fmt.Errorf("layer %s: its archive is not here: pull the image again: %w", l.Digest, err)
		}
		out[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: img.DiffIDs[i], Size: info.Size}
		same = false
	}
	return out, same, nil
}

// named writes what is saved under one name: a manifest, or an index of several.
func (v *saver) named(x savePlan) error {
	var list []ocispec.Descriptor
	for _, img := range x.imgs {
		d, err := v.image(img)
		if err != nil {
			return err
		}
		list = append(list, d)
	}
	target := list[0]
	if len(list) > 1 {
		body, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list})
		if err != nil {
			return err
		}
		target = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(body), Size: int64(len(body))}
		if err := v.file(blobPath(target.Digest), body); err != nil {
			return err
		}
	}
	// The list for those who read no index has one image a name: the host's.
	img := x.imgs[0]
	if best, err := pick("", x.imgs, new(oci.HostPlatform())); err == nil {
		img = best
	}
	v.list(img, x.ref)
	if x.ref != nil {
		target.Annotations = map[string]string{"io.containerd.image.name": x.ref.String(), ocispec.AnnotationRefName: x.ref.Tag()}
	}
	v.index = append(v.index, target)
	return nil
}

// image writes an image, and returns its manifest.
func (v *saver) image(img *Image) (target ocispec.Descriptor, err error) {
	m, err := v.s.manifest(v.ctx, img.Target)
	if err != nil {
		return target, err
	}
	layers, same, err := v.layers(m, img)
	if err != nil {
		return target, err
	}
	target = ocispec.Descriptor{MediaType: img.Target.MediaType, Digest: img.Target.Digest, Size: img.Target.Size}
	body, err := content.ReadBlob(v.ctx, v.s.store.Content, target, oci.MaxManifest)
	if err == nil && !same {
		target, body, err = oci.NewManifest(m.Config, layers, m.Annotations)
	}
	if err != nil {
		return target, err
	}
	for _, l := range layers {
		if err := v.blob(l); err != nil {
			return target, err
		}
	}
	if err := v.blob(m.Config); err != nil {
		return target, err
	}
	if err := v.file(blobPath(target.Digest), body); err != nil {
		return target, err
	}
	if v.images[img.ID] == nil {
		entry := &savedImage{Config: blobPath(m.Config.Digest), Layers: []string{}}
		for _, l := range layers {
			entry.Layers = append(entry.Layers, blobPath(l.Digest))
		}
		v.images[img.ID] = entry
	}
	target.Platform = new(img.Platform)
	return target, nil
}

// list adds an image that was written, under a name if it has one, to what those
// read who know no index.
func (v *saver) list(img *Image, ref reference.NamedTagged) {
	entry := v.images[img.ID]
	if !slices.Contains(v.order, img.ID) {
		v.order = append(v.order, img.ID)
	}
	if ref == nil {
		return
	}
	if name := reference.FamiliarString(ref); !slices.Contains(entry.RepoTags, name) {
		entry.RepoTags = append(entry.RepoTags, name)
	}
	if n := len(entry.Layers); n > 0 {
		repo := reference.FamiliarName(ref)
		if v.repos[repo] == nil {
			v.repos[repo] = map[string]string{}
		}
		v.repos[repo][ref.Tag()] = path.Base(entry.Layers[n-1])
	}
}

func (v *saver) finish() error {
	list := []*savedImage{}
	for _, id := range v.order {
		list = append(list, v.images[id])
	}
	docs := []struct {
		name string
		doc  any
	}{
		{ocispec.ImageIndexFile, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: v.index}},
		{"manifest.json", list},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{"repositories", v.repos},
	}
	for _, d := range docs {
		if d.name == "repositories" && len(v.repos) == 0 {
			continue
		}
		b, err := json.Marshal(d.doc)
		if err != nil {
			return err
		}
		if err := v.file(d.name, b); err != nil {
			return err
		}
	}
	return v.tw.Close()
}

// pathDigest reads the digest from a blob's path in an OCI layout.
func pathDigest(name string) (digest.Digest, bool) {
	alg, enc, ok := strings.Cut(strings.TrimPrefix(name, "blobs/"), "/")
	if !ok || !strings.HasPrefix(name, "blobs/") {
		return "", false
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(alg), enc)
	return d, d.Validate() == nil
}
