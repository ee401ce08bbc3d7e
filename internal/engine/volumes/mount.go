package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/moby/sys/mount"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Mounter makes mounts where everybody on the host sees them. What is mounted
// is recorded nowhere else: a killed daemon leaves nothing that could be wrong.
type Mounter interface {
	Mounted(dir string) (bool, error)
	Mount(device, dir, fstype, options string) error
	Unmount(dir string) error // of none is no error
}

// Mounted is what there is to know of a volume that is mounted.
type Mounted struct {
	// Fleeting tells that what is there will be gone when it is unmounted: what is
	// copied there is copied in vain.
	Fleeting bool
	// Foreign tells that its owners are those of the host, as of a bind's: they are
	// not to be mapped for user namespaces.
	Foreign bool
}

// active is a volume that is a file system of its own, while its service knows
// it: mounted with the first user, unmounted with the last.
type active struct {
	turn  sync.Mutex      // held over the mount calls, so that they are in order
	users map[string]bool // guarded by Service.mu
}

// Mount sees to it that a volume's files are at its path until the user, a
// container or a request, calls [Service.Unmount].
func (s *Service) Mount(ctx context.Context, name, user string) (Mounted, error) {
	s.mu.Lock()
	rec, err := s.get(name)
	if err != nil {
		s.mu.Unlock()
		return Mounted{}, err
	}
	l, err := parse(rec.Options)
	var a *active
	if err == nil && l.mounts() {
		a = s.use(name, user)
	}
	s.mu.Unlock()
	var m Mounted
	switch {
	case err != nil:
	case a != nil:
		m, err = s.mount(ctx, name, user, l, a)
	case l.size > 0:
		if err = s.o.Quotas.Renew(l.size, s.path(name)); err != nil {
			err = fmt.Errorf("size quota requested for volume but no quota support: %w", err)
		}
	}
	if err != nil {
		return Mounted{}, errs.Newf(errs.Internal, "error while mounting volume '%s': %w", s.path(name), err)
	}
	return m, nil
}

// use notes a user of a volume; the caller has mu.
func (s *Service) use(name, user string) *active {
	a := s.active[name]
	if a == nil {
		a = &active{users: map[string]bool{}}
		s.active[name] = a
	}
	a.users[user] = true
	return a
}

func (s *Service) mount(ctx context.Context, name, user string, l local, a *active) (Mounted, error) {
	a.turn.Lock()
	defer a.turn.Unlock()
	mounted, err := s.o.Mounts.Mounted(s.path(name))
	if err == nil && !mounted {
		err = s.mountNow(ctx, name, l)
	}
	s.mu.Lock()
	if err != nil {
		delete(a.users, user)
	}
	n := len(a.users)
	s.mu.Unlock()
	if err != nil {
		if n == 0 {
			err = errors.Join(err, s.o.Mounts.Unmount(s.path(name)))
		}
		return Mounted{}, err
	}
	return Mounted{Fleeting: l.inMemory() && n == 1, Foreign: !l.inMemory() || !s.o.MapsMemory}, nil
}

func (s *Service) mountNow(ctx context.Context, name string, l local) error {
	l, err := l.resolve(ctx, s.o.Lookup)
	if err != nil {
		return err
	}
	if err := s.o.Mounts.Mount(l.device, s.path(name), l.fstype, l.o); err != nil {
		// It may be there, but not as it should be.
		err = errors.Join(err, s.o.Mounts.Unmount(s.path(name)))
		return fmt.Errorf("failed to mount local volume: %s", l.masked(err.Error()))
	}
	return nil
}

// Hold notes that a container has used a volume since before this daemon.
func (s *Service) Hold(name, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, ok := s.vols[name]
	if !ok {
		return
	}
	if l, err := parse(rec.Options); err == nil && l.mounts() {
		s.use(name, user)
	}
}

// Unmount ends what [Service.Mount] and [Service.Hold] began; of one that has
// ended, or that nobody began, is no error.
func (s *Service) Unmount(_ context.Context, name, user string) error {
	s.mu.Lock()
	a := s.active[name]
	last := false
	if a != nil {
		delete(a.users, user)
		last = len(a.users) == 0
	}
	s.mu.Unlock()
	if !last { // not even to wait for: one of the others may be waiting for a server
		return nil
	}
	a.turn.Lock()
	defer a.turn.Unlock()
	s.mu.Lock()
	last = s.active[name] == a && len(a.users) == 0
	s.mu.Unlock()
	if !last {
		return nil
	}
	if err := s.o.Mounts.Unmount(s.path(name)); err != nil {
		return fmt.Errorf("error unmounting volume %s: %w", name, err)
	}
	return nil
}

// unmountUnused unmounts what an earlier daemon mounted and no container uses.
func (s *Service) unmountUnused(ctx context.Context) error {
	s.mu.Lock()
	var names []string
	for name, rec := range s.vols {
		if l, err := parse(rec.Options); err == nil && l.mounts() {
			if s.active[name] == nil {
				s.active[name] = &active{users: map[string]bool{}}
			}
			names = append(names, name)
		}
	}
	s.mu.Unlock()
	var bad []error
	for _, name := range names {
		bad = append(bad, s.Unmount(ctx, name, ""))
	}
	return errors.Join(bad...)
}

// detach makes sure that nothing is mounted at a volume that is to be removed:
// what is mounted there is not the volume's to delete. The caller has mu.
func (s *Service) detach(name string) error {
	if a := s.active[name]; a != nil {
		if len(a.users) > 0 || !a.turn.TryLock() {
			return errs.New(errs.Conflict, "volume has active mounts")
		}
		defer a.turn.Unlock()
	}
	return s.o.Mounts.Unmount(s.path(name))
}

type hostMounts struct{}

func (hostMounts) Mounted(dir string) (bool, error) {
	var st unix.Statx_t
	// Without asking a server that may not answer.
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	if err != nil {
		return false, &os.PathError{Op: "statx", Path: dir, Err: err}
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}

// Mount takes options as fstab has them.
func (hostMounts) Mount(device, dir, fstype, options string) error {
	if device == "none" || device == "" { // the library takes these for a remount
		device = cmp.Or(fstype, "none")
	}
	return mount.Mount(device, dir, fstype, options)
}

// Unmount detaches, as docker does: what still has files open keeps them.
func (m hostMounts) Unmount(dir string) error {
	if mounted, err := m.Mounted(dir); !mounted {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	// What is mounted below a bind is mounted below its device as well, and would
	// be unmounted there too.
	err := unix.Mount("", dir, "", unix.MS_PRIVATE|unix.MS_REC, "")
	if err == nil {
		err = unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err == nil || errors.Is(err, unix.EINVAL) { // somebody else was quicker
		return nil
	}
	return &os.PathError{Op: "unmount", Path: dir, Err: err}
}
