package containers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

type fakeImages struct {
	f        *failures
	mu       sync.Mutex
	pins     map[string]int
	onCommit func(Commit)
	onUnpin  func(id string) // is called before a pin goes
	config   dockerspec.DockerOCIImageConfig
	last     Commit
	confirm  func(id string) error
}

func (i *fakeImages) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (*Image, error) {
	if err := i.f.at("Resolve"); err != nil {
		return nil, err
	}
	if ref == "missing" || i.f.at("Resolve "+ref) != nil {
		return nil, errs.Newf(errs.NotFound, "No such image: %s", ref)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return &Image{ID: "sha256:" + strings.TrimPrefix(ref, "sha256:"), ChainID: "sha256:chain", Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Config: i.config}, nil
}

func (i *fakeImages) Confirm(_ context.Context, _ string, _ *ocispec.Platform, id string) error {
	if i.confirm != nil {
		return i.confirm(id)
	}
	return i.f.at("Confirm")
}

func (i *fakeImages) Lowers(context.Context, *Image) ([]string, error) {
	return []string{"/lower"}, i.f.at("Lowers")
}

func (i *fakeImages) Unpin(_ context.Context, _, id string) error {
	if i.onUnpin != nil {
		i.onUnpin(id)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pins, id)
	return nil
}

func (i *fakeImages) pinned() int                                 { i.mu.Lock(); defer i.mu.Unlock(); return len(i.pins) }
func (i *fakeImages) Size(context.Context, *Image) (int64, error) { return 1000, nil }
func (i *fakeImages) Descendants(_ context.Context, ref string) ([]string, error) {
	return []string{"sha256:" + ref}, nil
}

func (i *fakeImages) ShortName(ref, id string) string {
	if "sha256:"+ref == id {
		return ref
	}
	return id
}

func (i *fakeImages) Commit(_ context.Context, c Commit) (string, error) {
	if i.onCommit != nil {
		i.onCommit(c)
	}
	i.last = c
	return "sha256:new", i.f.at("Commit")
}

type fakeVolumes struct {
	f       *failures
	dir     string
	mu      sync.Mutex
	n       int
	held    map[string][]string
	made    map[string]bool
	mounted map[string][]string // name → users
	memory  bool                // they are file systems in memory
	foreign bool                // they are the host's
}

// mounts lists which volumes are mounted, and for how many.
func (v *fakeVolumes) mounts() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []string
	for name, users := range v.mounted {
		if len(users) > 0 {
			out = append(out, fmt.Sprintf("%s×%d", name, len(users)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (v *fakeVolumes) Mount(_ context.Context, name, user string) (MountedVolume, error) {
	if err := v.f.at("Mount " + name); err != nil {
		return MountedVolume{}, err
	}
	v.Hold(name, user)
	v.mu.Lock()
	defer v.mu.Unlock()
	return MountedVolume{Fleeting: v.memory && len(v.mounted[name]) == 1, Foreign: v.foreign}, nil
}

func (v *fakeVolumes) Hold(name, user string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.mounted[name], user) {
		v.mounted[name] = append(v.mounted[name], user)
	}
}

func (v *fakeVolumes) Unmount(_ context.Context, name, user string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mounted[name] = slices.DeleteFunc(v.mounted[name], func(s string) bool { return s == user })
	return nil
}

func (v *fakeVolumes) holders() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.held {
		n += len(h)
	}
	return n
}

func (v *fakeVolumes) exists(name string) bool { v.mu.Lock(); defer v.mu.Unlock(); return v.made[name] }

func (v *fakeVolumes) Acquire(_ context.Context, name, driver string, _, _ map[string]string, id string) (Volume, error) {
	if err := v.f.at("Acquire"); err != nil {
		return Volume{}, err
	}
	if err := v.f.at("Acquire " + name); err != nil {
		return Volume{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	anonymous := name == ""
	if anonymous {
		v.n++
		name = fmt.Sprintf("anon%d", v.n)
	}
	path := filepath.Join(v.dir, name, "_data")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return Volume{}, err
	}
	v.made[name] = true
	if !slices.Contains(v.held[name], id) {
		v.held[name] = append(v.held[name], id)
	}
	return Volume{Name: name, Path: path, Driver: firstOf(driver, "local"), Anonymous: anonymous}, nil
}

func (v *fakeVolumes) Release(_ context.Context, name, id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held[name] = slices.DeleteFunc(v.held[name], func(s string) bool { return s == id })
	return nil
}

func (v *fakeVolumes) Keep(context.Context, string) error { return v.f.at("Keep") }

func (v *fakeVolumes) Remove(_ context.Context, name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.held[name]) > 0 {
		return errs.New(errs.Conflict, "volume is in use")
	}
	delete(v.made, name)
	return nil
}
