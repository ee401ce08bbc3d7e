package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
)

// Create declares a container and makes its writable layer.
func (s *Service) Create(ctx context.Context, o CreateOptions) (container.CreateResponse, error) {
	none := container.CreateResponse{Warnings: []string{}}
	if o.Request == nil || o.Request.Config == nil {
		return none, errs.New(errs.Invalid, "config cannot be empty in order to create a container")
	}
	var undo cleanup.Stack
	defer undo.Run()

	id := ids.New()
	d, err := s.declare(ctx, o, id, &undo)
	if err != nil {
		return none, err
	}
	// What follows makes things, and must not be cut short by a client that
	// leaves: it is undone or done.
	ctx = context.WithoutCancel(ctx)
	c := newCtr(d.rec)
	c.st.Phase = Created
	c.image = d.image
	if err := s.acquire(ctx, c.rec.Mounts, id, &undo); err != nil {
		return none, err
	}
	if err := s.claimImages(ctx, c, o.Platform, &undo); err != nil {
		return none, err
	}
	if err := s.makeDirs(id, c.rec.LayerSize, &undo); err != nil {
		return none, fmt.Errorf("create container %s: %w", c.rec.Name, err)
	}
	if err := s.saveRecord(c); err != nil {
		return none, fmt.Errorf("create container %s: %w", c.rec.Name, err)
	}
	s.index.add(c)
	s.index.setLinks(id, c.rec.Links)
	undo.Release()
	s.event(&c.rec, apievents.ActionCreate, nil)
	return container.CreateResponse{ID: id, Warnings: d.warnings}, nil
}

// claimImages makes the images count as used that were found for a container: who
// removes one learns of it from here on. One that was removed since is missing.
func (s *Service) claimImages(ctx context.Context, c *ctr, p *ocispec.Platform, undo *cleanup.Stack) error {
	undo.Push(func() { s.unpin(ctx, c.rec.ImageID, c.id) }) // who removes by force may pin them at once
	undo.Push(s.index.expect(c))
	if c.image != nil {
		if err := s.o.Images.Confirm(ctx, c.rec.Config.Image, p, c.rec.ImageID); err != nil {
			return err
		}
	}
	for _, m := range c.rec.Mounts {
		if m.Type == mount.TypeImage {
			if err := s.o.Images.Confirm(ctx, m.Source, nil, m.Source); err != nil {
				return err
			}
		}
	}
	return nil
}

// declaration is a container's record before anything was made for it.
type declaration struct {
	rec      Record
	image    *Image
	warnings []string
}

// foreignPlatform warns of an image that this machine runs with an emulator, or
// not at all.
func foreignPlatform(p ocispec.Platform) string {
	m := p
	if m.Architecture == "amd64" {
		m.Variant = "" // which of them the processor has is not known here
	}
	if p.Architecture == "" || oci.Host().Match(m) {
		return ""
	}
	return fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
		oci.FormatPlatform(p), oci.FormatPlatform(oci.HostPlatform()))
}

// declare works a request out: name, image, configuration, mounts. Only the
// name is taken yet.
func (s *Service) declare(ctx context.Context, o CreateOptions, id string, undo *cleanup.Stack) (*declaration, error) {
	cfg, host, nets := *o.Request.Config, hostConfigCopy(o.Request.HostConfig), networkingCopy(o.Request.NetworkingConfig)
	s.normalize(host, nets)
	if err := validateNetMode(&cfg, host, nets); err != nil {
		return nil, err
	}
	if err := s.checkOthers(host); err != nil {
		return nil, err
	}
	name, err := s.reserveName(o.Name, id)
	if err != nil {
		return nil, err
	}
	undo.Push(func() { s.index.release(name, id) })

	d := &declaration{rec: Record{ID: id, Name: name, Created: s.now().UTC(), HostConfig: host}, warnings: []string{}}
	config := &cfg
	if cfg.Image != "" {
		if d.image, err = s.o.Images.Resolve(ctx, cfg.Image, o.Platform); err != nil {
			return nil, err
		}
		base, err := imageConfig(d.image.Config)
		if err != nil {
			return nil, err
		}
		config = merge(&cfg, base)
		d.rec.ImageID, d.rec.ChainID = d.image.ID, d.image.ChainID
		d.rec.Manifest, d.rec.Platform = d.image.Manifest, d.image.Platform
		if w := foreignPlatform(d.image.Platform); w != "" && o.Platform == nil {
			d.warnings = append(d.warnings, w)
		}
	}
	if config.WorkingDir != "" {
		config.WorkingDir = path.Clean(config.WorkingDir)
	}
	if d.rec.Path, d.rec.Args, err = command(config); err != nil {
		return nil, err
	}
	if len(config.Entrypoint) == 1 && config.Entrypoint[0] == "" {
		config.Entrypoint = nil
	}
	warnings, err := spec.Validate(config, host, s.spec().Host)
	if err != nil {
		return nil, err
	}
	d.warnings = append(d.warnings, warnings...)
	if d.rec.LayerSize, err = s.layerSize(host); err != nil {
		return nil, err
	}
	if len(host.Links) > 0 && host.NetworkMode.IsBridge() {
		d.warnings = append(d.warnings, "Links on the default bridge network are deprecated and will be removed in a future release. Use a custom network instead.")
	}
	if d.rec.Links, err = s.declaredLinks(host); err != nil {
		return nil, err
	}
	if err := s.setHostname(config, host, id); err != nil {
		return nil, err
	}
	d.rec.Endpoints = s.declaredEndpoints(config, host, nets)
	if d.rec.Mounts, err = s.declaredMounts(config, host, o.FlatReadOnly); err != nil {
		return nil, err
	}
	if host.LogConfig.Type == "" || host.LogConfig.Type == s.o.DefaultLog.Type {
		host.LogConfig.Type = s.o.DefaultLog.Type
		host.LogConfig.Config = union(host.LogConfig.Config, s.o.DefaultLog.Config)
	}
	if host.LogConfig.Config == nil {
		host.LogConfig.Config = map[string]string{}
	}
	for k, v := range s.o.DefaultLog.Config { // the cache's are for every driver
		if _, set := host.LogConfig.Config[k]; !set && logs.Common(k) && strings.HasPrefix(k, "cache-") {
			host.LogConfig.Config[k] = v
		}
	}
	d.rec.Config = config
	if d.rec.Log, err = s.o.Logs.Parse(host.LogConfig, s.dataDir(id), &d.rec); err != nil {
		return nil, err
	}
	return d, nil
}

func (s *Service) setHostname(c *container.Config, h *container.HostConfig, id string) (err error) {
	if c.Hostname != "" || h.UTSMode.IsHost() && !h.NetworkMode.IsHost() {
		return nil
	}
	if h.NetworkMode.IsHost() {
		c.Hostname, err = os.Hostname()
		return err
	}
	c.Hostname = ids.Short(id)
	return nil
}

// makeDirs makes the container's directories: its writable layer on the data
// root, its state on the run root.
func (s *Service) makeDirs(id string, size uint64, undo *cleanup.Stack) error {
	undo.Push(func() { s.throwLayer(s.dataDir(id), size) })
	if err := s.makeLayer(s.dataDir(id), size); err != nil {
		return err
	}
	if err := os.Mkdir(s.runDir(id), 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	undo.Push(func() { s.removeRunDir(id) })
	return nil
}

func (s *Service) throwAway(dir string) {
	if err := s.trash.throw(dir); err != nil {
		s.log.Warn("cannot throw a directory away", "dir", dir, "err", err)
	}
}

// removeRunDir removes a container's few small run-time files: on a tmpfs that
// is as quick as a rename.
func (s *Service) removeRunDir(id string) {
	if err := os.RemoveAll(s.runDir(id)); err != nil {
		s.log.Warn("cannot remove a run directory", "dir", s.runDir(id), "err", err)
	}
}

// hostConfigCopy copies what this package may fill in; the rest is shared with
// the request and never changed.
func hostConfigCopy(h *container.HostConfig) *container.HostConfig {
	if h == nil {
		return &container.HostConfig{}
	}
	c := *h
	c.LogConfig.Config = union(h.LogConfig.Config, nil)
	return &c
}

func networkingCopy(n *network.NetworkingConfig) *network.NetworkingConfig {
	if n == nil {
		return nil
	}
	return &network.NetworkingConfig{EndpointsConfig: union(n.EndpointsConfig, nil)}
}
