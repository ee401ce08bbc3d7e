// Package oci reads and makes image documents: manifests, indexes and
// configurations. It does no I/O; what it returns has been checked.
package oci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Limits of documents that are held in memory.
const (
	MaxManifest = 4 << 20
	MaxConfig   = 8 << 20
	maxLayers   = 512
)

// IsIndex reports whether the media type is an index's or a manifest list's.
func IsIndex(mediaType string) bool { return images.IsIndexType(mediaType) }

// IsManifest reports whether the media type is one image's manifest.
func IsManifest(mediaType string) bool { return images.IsManifestType(mediaType) }

// checkKind refuses a document that could be read as two kinds, or says that it
// is another kind than the one it was delivered as (CVE-2021-41190).
func checkKind(mediaType string, body []byte, index bool) error {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return errs.Newf(errs.Invalid, "manifest is not valid JSON: %w", err)
	}
	switch {
	case doc.SchemaVersion == 1, len(doc.FSLayers) > 0:
		return errs.New(errs.Invalid, "manifest of the obsolete schema 1 is not supported")
	case doc.MediaType != "" && mediaType != "" && doc.MediaType != mediaType:
		return errs.Newf(errs.Invalid, "manifest says that it is %s, but was delivered as %s", doc.MediaType, mediaType)
	case index && len(doc.Layers) > 0, !index && len(doc.Manifests) > 0:
		return errs.New(errs.Invalid, "manifest has both layers and manifests")
	}
	return nil
}

func checkDescriptor(what string, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return errs.Newf(errs.Invalid, "manifest: digest %q of %s: %w", d.Digest, what, err)
	}
	if d.Size < 0 {
		return errs.Newf(errs.Invalid, "manifest: size %d of %s", d.Size, what)
	}
	return nil
}

// ParseManifest reads one image's manifest.
func ParseManifest(mediaType string, body []byte) (*ocispec.Manifest, error) {
	if err := checkKind(mediaType, body, false); err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, errs.Newf(errs.Invalid, "manifest: %w", err)
	}
	if err := checkDescriptor("the configuration", m.Config); err != nil {
		return nil, err
	}
	if len(m.Layers) > maxLayers {
		return nil, errs.Newf(errs.Invalid, "manifest has %d layers, more than %d", len(m.Layers), maxLayers)
	}
	for i, l := range m.Layers {
		if err := checkDescriptor(fmt.Sprintf("layer %d", i+1), l); err != nil {
			return nil, err
		}
	}
	return &m, nil
}

// ParseIndex reads an index or manifest list.
func ParseIndex(mediaType string, body []byte) (*ocispec.Index, error) {
	if err := checkKind(mediaType, body, true); err != nil {
		return nil, err
	}
	var x ocispec.Index
	if err := json.Unmarshal(body, &x); err != nil {
		return nil, errs.Newf(errs.Invalid, "index: %w", err)
	}
	for i, m := range x.Manifests {
		if err := checkDescriptor(fmt.Sprintf("manifest %d", i+1), m); err != nil {
			return nil, err
		}
	}
	return &x, nil
}

// ParseConfig reads an image's configuration.
func ParseConfig(body []byte) (dockerspec.DockerOCIImage, error) {
	var c dockerspec.DockerOCIImage
	if err := json.Unmarshal(body, &c); err != nil {
		return c, errs.Newf(errs.Invalid, "image configuration: %w", err)
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) { // null decodes into anything
		return c, errs.New(errs.Invalid, "image configuration: not an object")
	}
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return c, errs.Newf(errs.Invalid, "image configuration: root file system of type %q", c.RootFS.Type)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return c, errs.Newf(errs.Invalid, "image configuration: diff id %q: %w", d, err)
		}
	}
	return c, nil
}

// ConfigPlatform is the platform that a configuration is for.
func ConfigPlatform(c *dockerspec.DockerOCIImage) ocispec.Platform {
	p := c.Platform
	if p.OS == "" {
		p.OS = "linux"
	}
	return p
}

// IsAttestation reports whether an index's entry describes another one instead
// of being an image.
func IsAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" || d.Platform != nil && d.Platform.OS == "unknown"
}

// Host matches what runs here, best first; Only matches p exactly enough to run.
func Host() platforms.MatchComparer { return platforms.Only(platforms.DefaultSpec()) }

// Matcher is for the platform asked for, or the host's.
func Matcher(p *ocispec.Platform) platforms.MatchComparer {
	if p == nil {
		return Host()
	}
	return platforms.Only(*p)
}

// Choose returns the index's images that match, best first.
func Choose(x *ocispec.Index, m platforms.MatchComparer) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for _, d := range x.Manifests {
		if IsAttestation(d) || !IsManifest(d.MediaType) {
			continue
		}
		if d.Platform == nil || m.Match(*d.Platform) {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return 0
		case m.Less(*a.Platform, *b.Platform):
			return -1
		case m.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return out
}

// ChainIDs returns the name of each layer on top of those before it.
func ChainIDs(diffIDs []digest.Digest) []digest.Digest {
	return identity.ChainIDs(slices.Clone(diffIDs))
}

// NewManifest makes a manifest for a configuration and its layers. Documents
// of Docker's media types are kept among themselves.
func NewManifest(config ocispec.Descriptor, layers []ocispec.Descriptor, annotations map[string]string) (ocispec.Descriptor, []byte, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: slices.Clone(layers), Annotations: annotations,
	}
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	for i, l := range m.Layers {
		m.Layers[i] = ocispec.Descriptor{MediaType: ociLayerType(l.MediaType), Digest: l.Digest, Size: l.Size, Annotations: l.Annotations}
	}
	if m.Layers == nil {
		m.Layers = []ocispec.Descriptor{}
	}
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}, body, nil
}

// ociLayerType translates Docker's names of layer types.
func ociLayerType(t string) string {
	switch t {
	case images.MediaTypeDockerSchema2LayerGzip, images.MediaTypeDockerSchema2LayerForeignGzip:
		return ocispec.MediaTypeImageLayerGzip
	case images.MediaTypeDockerSchema2Layer, images.MediaTypeDockerSchema2LayerForeign:
		return ocispec.MediaTypeImageLayer
	case images.MediaTypeDockerSchema2LayerZstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return t
}

// FormatPlatform is "linux/arm64/v8".
func FormatPlatform(p ocispec.Platform) string {
	return strings.Trim(platforms.FormatAll(p), "/")
}

// IsConfig reports whether the media type is an image configuration's, not that
// of an artefact that only looks like an image.
func IsConfig(mediaType string) bool { return images.IsConfigType(mediaType) }

// HostPlatform is what runs here.
func HostPlatform() ocispec.Platform { return platforms.DefaultSpec() }
