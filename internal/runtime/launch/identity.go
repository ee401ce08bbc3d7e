//go:build linux

package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unsafe"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// An identity is who the command runs as.
type identity struct {
	uid, gid int
	groups   []int
	home     string
}

const maxUserFile = 16 << 20

// readUserFile reads a file of the image that tells of users. It must be a
// plain file of a sane size; whatever else it is, it is not even opened.
func (s *setup) readUserFile(path string) ([]byte, error) {
	at, err := mnt.OpenIn(s.root, path, unix.O_PATH, 0)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	fd, err := mnt.OpenFile(at, s.proc)
	_ = unix.Close(at)
	switch {
	case errors.Is(err, mnt.ErrNotRegular):
		return nil, fmt.Errorf("%s is not a regular file", path)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > maxUserFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxUserFile)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxUserFile+1))
	if err == nil && len(data) > maxUserFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxUserFile)
	}
	return data, err
}

// identify finds out who the command runs as.
func (s *setup) identify() error {
	passwd, err := s.readUserFile("/etc/passwd")
	if err != nil {
		return fmt.Errorf("look users up: %w", err)
	}
	if s.req.User == nil {
		return s.given(s.req.Process.User, passwd)
	}
	group, err := s.readUserFile("/etc/group")
	if err != nil {
		return fmt.Errorf("look groups up: %w", err)
	}
	u, err := user.GetExecUser(s.req.User.Spec, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return &runtime.StartError{Code: 125, Text: err.Error(), Invalid: true}
	}
	extra, err := user.GetAdditionalGroups(s.req.User.Groups, bytes.NewReader(group))
	if err != nil {
		return &runtime.StartError{Code: 125, Text: err.Error(), Invalid: true}
	}
	// The primary group is among the others too, so that dropping it is seen.
	groups := append([]int{u.Gid}, append(u.Sgids, extra...)...)
	var unique []int
	for _, g := range groups {
		if !slices.Contains(unique, g) {
			unique = append(unique, g)
		}
	}
	s.ids = identity{u.Uid, u.Gid, unique, u.Home}
	return nil
}

func (s *setup) given(u specs.User, passwd []byte) error {
	s.ids = identity{uid: int(u.UID), gid: int(u.GID), home: "/"}
	for _, g := range u.AdditionalGids {
		s.ids.groups = append(s.ids.groups, int(g))
	}
	entries, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(e user.User) bool { return e.Uid == int(u.UID) })
	if err == nil && len(entries) > 0 && entries[0].Home != "" {
		s.ids.home = entries[0].Home
	}
	return nil
}

// environment is the command's, with a HOME and, at a terminal, nothing more:
// the engine has said the rest.
func (s *setup) environment() {
	s.env = append([]string(nil), s.req.Process.Env...)
	if i := slices.IndexFunc(s.env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }); i < 0 {
		s.env = append(s.env, "HOME="+s.ids.home)
	} else if s.env[i] == "HOME=" {
		s.env[i] += s.ids.home
	}
}

// ownStreams lets the user open /dev/stdout again: the streams are root's.
func (s *setup) ownStreams() error {
	if !s.req.OwnIO || s.ids.uid == 0 {
		return nil
	}
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			continue // closed: nothing to own
		}
		if st.Rdev == unix.Mkdev(1, 3) && st.Mode&unix.S_IFMT == unix.S_IFCHR {
			continue // the null device is everybody's
		}
		if err := unix.Fchown(fd, s.ids.uid, int(st.Gid)); err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("own stream %d: %w", fd, err)
		}
	}
	return nil
}

// The calls below go to the kernel directly: they must change this thread, the
// one that executes the command, and no other.

func setGroups(groups []int) error {
	gids := make([]uint32, len(groups)+1)
	for i, g := range groups {
		gids[i] = uint32(g)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&gids[0])), 0)
	if errno != 0 {
		return fmt.Errorf("set groups: %w", errno)
	}
	return nil
}

func (id identity) assume() error {
	if err := setGroups(id.groups); err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(id.gid), uintptr(id.gid), uintptr(id.gid)); errno != 0 {
		return fmt.Errorf("set group %d: %w", id.gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(id.uid), uintptr(id.uid), uintptr(id.uid)); errno != 0 {
		return fmt.Errorf("set user %d: %w", id.uid, errno)
	}
	return nil
}
