package daemon

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/engine/volumes"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/layer"
	"github.com/skiff-containers/skiff/internal/network"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// The engine's services and the trades do not know each other; what one needs
// of another it declares, and is given here.

// ctrNetworks is containers.Networks over the network manager.
type ctrNetworks struct{ m *network.Manager }

func (n ctrNetworks) NewSandbox(ctx context.Context, s network.SandboxSpec) (containers.Sandbox, error) {
	sb, err := n.m.NewSandbox(ctx, s)
	if err != nil {
		return nil, err // not a typed nil
	}
	return sb, nil
}

func (n ctrNetworks) AdoptSandbox(ctx context.Context, s network.SandboxState, pid int, ticks uint64) (containers.Sandbox, error) {
	sb, err := n.m.AdoptSandbox(ctx, s, pid, ticks)
	if err != nil {
		return nil, err
	}
	return sb, nil
}

func (n ctrNetworks) Lookup(nameOrID string) (network.NetworkInfo, error) {
	return n.m.Lookup(nameOrID)
}

// netContainers is what engine/networks needs of the containers. It is filled
// after both were made: each asks the other.
type netContainers struct{ s *containers.Service }

func (n *netContainers) ConnectNetwork(ctx context.Context, containerID, networkID string, e *apinetwork.EndpointSettings) error {
	return n.s.ConnectNetwork(ctx, containerID, networkID, e)
}

func (n *netContainers) DisconnectNetwork(ctx context.Context, containerID, networkID string, force bool) error {
	return n.s.DisconnectNetwork(ctx, containerID, networkID, force)
}

// ctrImages is containers.Images over the image service.
type ctrImages struct{ s *images.Service }

func (i ctrImages) Resolve(ctx context.Context, ref string, p *ocispec.Platform) (*containers.Image, error) {
	img, err := i.s.Resolve(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	return &containers.Image{
		ID: img.ID.String(), Manifest: &img.Target, Platform: img.Platform, Config: img.Config.Config, Handle: img,
		ChainID: img.ChainID.String(),
	}, nil
}

func handle(img *containers.Image) *images.Image {
	if img == nil {
		return nil
	}
	if h, ok := img.Handle.(*images.Image); ok {
		return h // Resolve put it there
	}
	// The image was removed by force from under its container: its layers stay.
	return &images.Image{ID: digest.Digest(img.ID), ChainID: digest.Digest(img.ChainID)}
}

func (i ctrImages) Confirm(ctx context.Context, ref string, p *ocispec.Platform, imageID string) error {
	return i.s.Confirm(ctx, ref, p, digest.Digest(imageID))
}

func (i ctrImages) Lowers(ctx context.Context, img *containers.Image) ([]string, error) {
	return i.s.Lowers(ctx, handle(img))
}

func (i ctrImages) Unpin(ctx context.Context, _, containerID string) error {
	return i.s.Unpin(ctx, containerID)
}

func (i ctrImages) Size(ctx context.Context, img *containers.Image) (int64, error) {
	return i.s.Size(ctx, handle(img)), nil
}

func (i ctrImages) Descendants(ctx context.Context, ref string) ([]string, error) {
	return i.s.Descendants(ctx, ref)
}

func (i ctrImages) ShortName(ref, imageID string) string {
	if i.s.NameLeadsTo(context.Background(), ref, imageID) {
		return ref
	}
	return ids.Short(imageID)
}

func (i ctrImages) Commit(ctx context.Context, c containers.Commit) (string, error) {
	return i.s.Commit(ctx, images.CommitSpec{
		Parent: handle(c.Parent), Upper: c.Upper, Config: c.Config, Author: c.Author, Comment: c.Comment,
		CreatedBy: c.CreatedBy, Ref: c.Ref, ContainerID: c.ContainerID,
	})
}

// ctrVolumes is containers.Volumes over the volume service.
type ctrVolumes struct{ s *volumes.Service }

func (v ctrVolumes) Acquire(ctx context.Context, name, driver string, opts, labels map[string]string, containerID string) (containers.Volume, error) {
	vol, err := v.s.Acquire(ctx, name, driver, opts, labels, containerID)
	if err != nil {
		return containers.Volume{}, err
	}
	return containers.Volume{Name: vol.Name, Driver: vol.Driver, Path: vol.Path, Anonymous: vol.Anonymous}, nil
}

func (v ctrVolumes) Mount(ctx context.Context, name, user string) (containers.MountedVolume, error) {
	m, err := v.s.Mount(ctx, name, user)
	return containers.MountedVolume(m), err
}

func (v ctrVolumes) Hold(name, user string) { v.s.Hold(name, user) }

func (v ctrVolumes) Unmount(ctx context.Context, name, user string) error {
	return v.s.Unmount(ctx, name, user)
}

func (v ctrVolumes) Release(ctx context.Context, name, containerID string) error {
	return v.s.Release(ctx, name, containerID)
}

func (v ctrVolumes) Keep(ctx context.Context, name string) error { return v.s.Keep(ctx, name) }

func (v ctrVolumes) Remove(ctx context.Context, name string) error {
	return v.s.Remove(ctx, name, false)
}

// ctrLayers is containers.Layers over package layer.
type ctrLayers struct{}

type ctrRoot struct{ *layer.Root }

func (r ctrRoot) Untar(ctx context.Context, path string, in io.Reader, o containers.UntarOptions) error {
	lo := layer.UntarOptions{NoOverwriteDirNonDir: o.NoOverwriteDirNonDir}
	if o.User != nil {
		lo.User = o.User
	}
	return r.Root.Untar(ctx, path, in, lo)
}

func (ctrLayers) OpenPID(_ context.Context, pid int) (containers.Root, error) {
	r, err := layer.OpenPID(pid)
	if err != nil {
		return nil, err
	}
	return ctrRoot{r}, nil
}

func (ctrLayers) OpenMount(_ context.Context, pid int) (containers.Root, error) {
	r, err := layer.OpenMount(pid)
	if err != nil {
		return nil, err
	}
	return ctrRoot{r}, nil
}

func (ctrLayers) OpenRoot(_ context.Context, rootfs runtime.Rootfs, mounts []containers.RootMount) (containers.Root, error) {
	ms := make([]layer.RootMount, len(mounts))
	for i, m := range mounts {
		ms[i] = layer.RootMount{Source: m.Source, Subpath: m.Subpath, Destination: m.Destination, ReadOnly: m.ReadOnly}
	}
	r, err := layer.OpenRoot(&rootfs, ms...)
	if err != nil {
		return nil, err
	}
	return ctrRoot{r}, nil
}

func (ctrLayers) Changes(ctx context.Context, lowers []string, upper string) ([]container.FilesystemChange, error) {
	return layer.Changes(ctx, upper, lowers, nil)
}

func (ctrLayers) CopyUp(ctx context.Context, rootfs runtime.Rootfs, path, dir, sub string, owners *userns.Map) error {
	return layer.CopyUp(ctx, &rootfs, path, dir, sub, owners)
}

func (ctrLayers) DiskUsage(ctx context.Context, dir string) (int64, error) {
	return layer.DiskUsage(ctx, dir)
}

func (ctrLayers) Stubs(base string, lowers []string) (string, error) {
	return layer.Stubs(base, lowers)
}
