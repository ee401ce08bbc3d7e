package images

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Image is one platform's image, ready to run.
type Image struct {
	ID       digest.Digest      // of the configuration
	Target   ocispec.Descriptor // its manifest
	Config   dockerspec.DockerOCIImage
	ChainID  digest.Digest   // names the topmost layer's snapshot; "" for scratch
	DiffIDs  []digest.Digest // bottom first
	Created  time.Time
	Platform ocispec.Platform

	chain []digest.Digest // the chainIDs of all layers, bottom first
}

// PullOptions are those of POST /images/create.
type PullOptions struct {
	Ref      string // "name", "name:tag" or "name@digest"
	All      bool   // every tag of the repository
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
}

// PushOptions are those of POST /images/{name}/push.
type PushOptions struct {
	Ref      string
	All      bool
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig
}

// ListOptions are those of GET /images/json.
type ListOptions struct {
	All, SharedSize, Manifests, ContainerCount bool
	Filters                                    filter.Set
}

// RemoveOptions are those of DELETE /images/{name}.
type RemoveOptions struct {
	Force, NoPrune bool
	Platforms      []ocispec.Platform
}

// ImportOptions are those of POST /images/create?fromSrc=….
type ImportOptions struct {
	Ref      string // "repo:tag" for the new image, or ""
	Message  string
	Changes  []string // Dockerfile instructions
	Platform *ocispec.Platform
}

// CommitSpec makes an image of a container's writable layer.
type CommitSpec struct {
	Parent      *Image // nil for none
	Upper       string // the container's upper directory
	Config      dockerspec.DockerOCIImageConfig
	Author      string
	Comment     string
	CreatedBy   string
	Ref         string // "repo:tag", or ""
	ContainerID string
}
