//go:build linux

package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
	"github.com/skiff-containers/skiff/internal/sys/userns"
)

// Root of a user namespace may not do much of what a container's set-up needs:
// look into directories that are the host's root's alone, map owners, make
// devices, show a network namespace's sysfs that is not its own. So the parent
// makes these, as mounts attached nowhere, and the child inherits descriptors.
//
// The layers of an overlay hold owners as the container sees them: in a user
// namespace they are mounted with mapped owners. A root that is a directory
// ([runtime.Rootfs.Bind], or the specification's) is used as it is, unless its
// owners are said to be the container's.

// mapOf is what a specification's user namespace maps.
func mapOf(l *specs.Linux) userns.Map { return userns.Map{UIDs: l.UIDMappings, GIDs: l.GIDMappings} }

// A preparation is what the parent does for one child, on the thread that
// clones it, once that has joined the child's namespaces.
type preparation struct {
	launch *runtime.Launch
	req    *request
	ns     *namespaces
	files  *inherited
	undo   []func()
}

func (p *preparation) keep(fd int) int {
	p.undo = append(p.undo, func() { _ = unix.Close(fd) })
	return p.files.add(fd)
}

func (p *preparation) close() {
	for _, f := range p.undo {
		f()
	}
}

func (p *preparation) run() error {
	if !p.ns.shared {
		if err := p.mounts(); err != nil {
			return err
		}
	}
	if p.ns.user < 0 {
		return nil
	}
	if err := p.limits(); err != nil {
		return err
	}
	return p.sysctls()
}

// mounts opens, and where need be makes, what the child attaches.
func (p *preparation) mounts() error {
	list := p.launch.Spec.Mounts
	for i := range list {
		fd, err := p.source(&list[i])
		if err != nil {
			return fmt.Errorf("error mounting %q to rootfs at %q: %w", list[i].Source, list[i].Destination, err)
		}
		if fd < 0 {
			continue
		}
		if p.req.Made.Sources == nil {
			p.req.Made.Sources = make([]int, len(list))
		}
		p.req.Made.Sources[i] = p.keep(fd)
	}
	if p.ns.user < 0 {
		return nil
	}
	fd, err := p.root()
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	p.req.Made.Root = p.keep(fd)
	return nil
}

// source prepares one mount; -1 if the child can do it.
func (p *preparation) source(m *specs.Mount) (int, error) {
	o := mnt.ParseOptions(m.Options)
	mapped := o.IDMap || len(m.UIDMappings) > 0
	if o.Remount || p.ns.user < 0 && !mapped {
		return -1, nil
	}
	if o.Bind || m.Type == "bind" {
		fd, err := mnt.CloneBelow(m.Source, o.Subpath, o.Recursive)
		if err != nil || !mapped {
			return fd, err
		}
		return fd, closeOn(fd, p.mapOwners(fd, m, o.RecIDMap))
	}
	if p.ns.user < 0 {
		return -1, nil
	}
	fresh := func(kind uintptr) bool { return p.ns.flags&kind != 0 }
	switch {
	case m.Type == "overlay":
		return p.layers(m, o)
	case m.Type == "tmpfs" && path.Clean("/"+m.Destination) == "/dev":
		return p.dev(o)
	case m.Type == "sysfs" && !fresh(unix.CLONE_NEWNET):
		return mnt.New(m.Type, m.Type, o.Data, int(o.Set))
	case m.Type == "mqueue" && !fresh(unix.CLONE_NEWIPC):
		return newMessageQueues(o, m.Type, p.launch.Spec.Linux.MountLabel)
	}
	return -1, nil
}

// layers makes an overlay that is a mount: an image's, which is read only.
func (p *preparation) layers(m *specs.Mount, o mnt.Options) (int, error) {
	var lower []string
	for _, d := range o.Data {
		if d.Key != "lowerdir" {
			return -1, errs.Newf(errs.Unsupported, "an overlay with option %s cannot be mounted in a user namespace", d.Key)
		}
		lower = strings.Split(d.Value, ":")
	}
	fd, err := p.overlay(&runtime.Rootfs{Lower: lower}, p.launch.Spec.Linux.MountLabel)
	if err != nil || o.Subpath == "" {
		return fd, err
	}
	defer func() { _ = unix.Close(fd) }()
	clone := -1
	err = mnt.InNamespace(func() (err error) {
		at, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(at) }()
		clone, err = mnt.CloneInside(fd, at, o.Subpath)
		return err
	})
	return clone, err
}

func closeOn(fd int, err error) error {
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

// mapOwners maps a mount's owners as it says itself, or as the container does.
func (p *preparation) mapOwners(fd int, m *specs.Mount, recursive bool) error {
	if len(m.UIDMappings)+len(m.GIDMappings) == 0 {
		return mnt.MapOwners(fd, p.ns.user, recursive)
	}
	ns, err := userns.New(userns.Map{UIDs: m.UIDMappings, GIDs: m.GIDMappings})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	return mnt.MapOwners(fd, ns, recursive)
}

// dev makes the container's /dev, whose devices only the host's root can make.
func (p *preparation) dev(o mnt.Options) (int, error) {
	pts := slices.ContainsFunc(p.launch.Spec.Mounts, func(m specs.Mount) bool {
		return m.Type == "devpts" && path.Clean("/"+m.Destination) == "/dev/pts"
	})
	data := labelled(o.Data, p.launch.Spec.Linux.MountLabel)
	build := func(owner func(uid, gid int) (int, int, error)) (int, error) {
		fd, err := mnt.New("tmpfs", "tmpfs", data, int(o.Set&^unix.MOUNT_ATTR_RDONLY))
		if err != nil {
			return -1, err
		}
		return fd, closeOn(fd, fillDev(fd, p.launch.Spec.Linux.Devices, pts, owner))
	}
	p.req.Made.Dev = true
	fd, err := build(nil)
	if err != nil {
		return -1, err
	}
	if mnt.MapOwners(fd, p.ns.user, false) == nil {
		return fd, nil
	}
	// Kernels before 6.3 cannot map a tmpfs: other owners, then.
	_ = unix.Close(fd)
	if fd, err = build(p.outside); err != nil {
		return -1, err
	}
	uid, gid, err := p.outside(0, 0)
	if err == nil {
		err = unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
	}
	return fd, closeOn(fd, err)
}

// outside is who an owner in the container is on the host.
func (p *preparation) outside(uid, gid int) (int, int, error) {
	u, g, ok := mapOf(p.launch.Spec.Linux).Outside(uint32(uid), uint32(gid))
	if !ok {
		return 0, 0, errs.Newf(errs.Invalid, "owner %d:%d is not mapped by the specification", uid, gid)
	}
	return u, g, nil
}

// root makes the container's root.
func (p *preparation) root() (int, error) {
	fs, label := p.launch.Rootfs, p.launch.Spec.Linux.MountLabel
	switch {
	case fs == nil:
		return mnt.Clone(unix.AT_FDCWD, p.launch.Spec.Root.Path, true)
	case fs.Bind != "":
		fd, err := mnt.Clone(unix.AT_FDCWD, fs.Bind, true)
		if err != nil || !fs.Inside {
			return fd, err
		}
		return fd, closeOn(fd, mnt.MapOwners(fd, p.ns.user, false))
	case alone(fs) && label == "":
		fd, err := p.layer(fs.Lower[0])
		if err != nil {
			return -1, err
		}
		return fd, closeOn(fd, mnt.SetAttr(fd, unix.MOUNT_ATTR_RDONLY, 0, 0, false))
	}
	return p.overlay(fs, label)
}

// overlay makes an overlay whose layers have mapped owners.
func (p *preparation) overlay(fs *runtime.Rootfs, label string) (int, error) {
	mapped := &runtime.Rootfs{Volatile: fs.Volatile}
	var open []int // those of lower layers first
	defer func() {
		for _, fd := range open {
			_ = unix.Close(fd)
		}
	}()
	for _, l := range fs.Lower {
		fd, err := p.layer(l)
		if err != nil {
			return -1, err
		}
		open = append(open, fd)
		mapped.Lower = append(mapped.Lower, byNumber(fd))
	}
	if alone(fs) { // a label needs an overlay, and that a second layer, an empty one
		fd, err := mnt.Clone(unix.AT_FDCWD, p.req.MountPoint, false)
		if err != nil {
			return -1, err
		}
		open = append(open, fd)
		mapped.Lower = append(mapped.Lower, byNumber(fd))
	}
	if fs.Upper != "" {
		// Both must be seen through one mount.
		top := path.Dir(fs.Upper)
		if top != path.Dir(fs.Work) {
			return -1, errs.Newf(errs.Unsupported, "upper and work directory of an overlay with mapped owners are not in one directory: %s, %s", fs.Upper, fs.Work)
		}
		if fs.Volatile {
			if err := os.RemoveAll(fs.Work + "/work/incompat"); err != nil {
				return -1, err
			}
		}
		fd, err := p.layer(top)
		if err != nil {
			return -1, err
		}
		open = append(open, fd)
		mapped.Upper, mapped.Work = byNumber(fd)+"/"+path.Base(fs.Upper), byNumber(fd)+"/"+path.Base(fs.Work)
	}
	uid, gid, err := p.outside(0, 0)
	if err != nil {
		return -1, err
	}
	fd, err := asOwner(uid, gid, func() (int, error) { return overlayByLayer(mapped, label) })
	if !errors.Is(err, unix.EINVAL) {
		return fd, err
	}
	err = mnt.InNamespace(func() (err error) {
		fd, err = asOwner(uid, gid, func() (int, error) { return overlayInPlace(fs, open, len(mapped.Lower), label) })
		return err
	})
	return fd, err
}

// overlayInPlace is for kernels before 6.15, whose overlays take layers only
// from the mount namespace of who makes them: it attaches them in the thread's
// own, by the names of their numbers, where mount(2) finds them. The last one
// holds the upper and the work directory.
func overlayInPlace(fs *runtime.Rootfs, layers []int, lower int, label string) (int, error) {
	base, err := mnt.New("tmpfs", "tmpfs", []mnt.Opt{{Key: "mode", Value: "755"}}, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(base) }()
	over, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(over) }()
	if err := mnt.Attach(base, over); err != nil {
		return -1, err
	}
	if err := unix.Fchdir(base); err != nil {
		return -1, err
	}
	var names []string
	for i, layer := range layers {
		name := strconv.Itoa(i)
		if err := unix.Mkdir(name, 0o755); err != nil {
			return -1, err
		}
		if err := unix.MoveMount(layer, "", unix.AT_FDCWD, name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("move_mount: %w", err)
		}
		names = append(names, name)
	}
	data := "lowerdir=" + strings.Join(names[:lower], ":")
	if fs.Upper != "" {
		top := names[len(names)-1] + "/"
		data += ",upperdir=" + top + path.Base(fs.Upper) + ",workdir=" + top + path.Base(fs.Work)
		if fs.Volatile {
			data += ",volatile"
		}
	}
	if label != "" {
		data += ",context=\"" + label + "\""
	}
	if len(data) >= os.Getpagesize() {
		return -1, fmt.Errorf("%d layers are too many for this kernel", len(fs.Lower))
	}
	if err := unix.Mkdir("root", 0o755); err != nil {
		return -1, err
	}
	if err := unix.Mount("overlay", "root", "overlay", 0, data); err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	return mnt.Clone(unix.AT_FDCWD, "root", false)
}

func asOwner(uid, gid int, f func() (int, error)) (fd int, err error) {
	err = userns.AsOwner(uid, gid, func() (err error) {
		fd, err = f()
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

func byNumber(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func (p *preparation) layer(dir string) (int, error) {
	fd, err := mnt.Clone(unix.AT_FDCWD, dir, false)
	if err != nil {
		return -1, err
	}
	if err := mnt.MapOwners(fd, p.ns.user, false); err != nil {
		return -1, closeOn(fd, fmt.Errorf("layer %s: %w", dir, err))
	}
	return fd, nil
}

// limits opens and sets what is beyond the rights of a user namespace's root.
func (p *preparation) limits() error {
	if p.req.PIDsFile == "" {
		return nil
	}
	fd, err := unix.Open(p.req.PIDsFile, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: p.req.PIDsFile, Err: err}
	}
	p.req.Made.PIDs = p.keep(fd)
	return nil
}

// sysctls sets those of a network namespace that is not the user namespace's
// own, on a thread that is in it.
func (p *preparation) sysctls() error {
	if p.ns.flags&unix.CLONE_NEWNET != 0 {
		return nil
	}
	s := &setup{req: p.req, proc: -1}
	defer func() {
		if s.proc >= 0 {
			_ = unix.Close(s.proc)
		}
	}()
	for key, value := range p.launch.Spec.Linux.Sysctl {
		if !strings.HasPrefix(sysctlFile(key), "net/") {
			continue
		}
		if s.proc < 0 {
			if err := s.openProc(); err != nil {
				return err
			}
		}
		if err := s.sysctl(key, value); err != nil {
			return err
		}
	}
	p.req.Made.Sysctls = true
	return nil
}

// settle does to a child in a user namespace what only its parent may: limits
// beyond the hard ones, a lower OOM score, the ownership of its streams.
func settle(pid int, req *request, files []uintptr, want *specs.Linux) error {
	ids, err := userns.Of(pid)
	if err != nil {
		return err
	}
	if want != nil {
		m := mapOf(want)
		if len(m.UIDs) == 0 {
			m.UIDs = ids.UIDs
		}
		if len(m.GIDs) == 0 {
			m.GIDs = ids.GIDs
		}
		if !m.Same(ids) {
			return errs.New(errs.Invalid, "the user namespace to join maps other ids than the specification says")
		}
	}
	if adj := req.Process.OOMScoreAdj; adj != nil {
		if err := writeOnce("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", strconv.Itoa(*adj)); err != nil {
			return fmt.Errorf("oom score %d: %w", *adj, err)
		}
	}
	for _, l := range req.Process.Rlimits {
		if err := setLimit(pid, l); err != nil {
			return fmt.Errorf("error setting rlimit type %s: %w", l.Type, err)
		}
	}
	if !req.OwnIO {
		return nil
	}
	uid, gid, ok := ids.Outside(0, 0)
	if !ok {
		return errs.New(errs.Invalid, "the user namespace maps no root")
	}
	for _, fd := range files[:3] {
		var st unix.Stat_t
		if err := unix.Fstat(int(fd), &st); err != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR {
			continue
		}
		if err := unix.Fchown(int(fd), uid, gid); err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("own stream: %w", err)
		}
	}
	return nil
}
