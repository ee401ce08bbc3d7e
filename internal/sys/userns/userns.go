//go:build linux

// Package userns makes user namespaces, and tells who is who in them.
package userns

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/sys/holder"
)

// A Map says who a user namespace's ids are outside of it.
type Map struct {
	UIDs, GIDs []specs.LinuxIDMapping
}

// Of reads what the user namespace of a process maps.
func Of(pid int) (m Map, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	if m.UIDs, err = readMap(dir + "uid_map"); err == nil {
		m.GIDs, err = readMap(dir + "gid_map")
	}
	return m, err
}

func readMap(file string) ([]specs.LinuxIDMapping, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []specs.LinuxIDMapping
	for line := range strings.Lines(string(data)) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		list = append(list, m)
	}
	return list, nil
}

// Identity reports whether every id is itself, as outside of user namespaces.
func (m Map) Identity() bool {
	whole := func(l []specs.LinuxIDMapping) bool {
		return len(l) == 1 && l[0].ContainerID == l[0].HostID && l[0].HostID == 0 && l[0].Size == ^uint32(0)
	}
	return whole(m.UIDs) && whole(m.GIDs)
}

// Outside is who an owner in the namespace is outside of it.
func (m Map) Outside(uid, gid uint32) (u, g int, ok bool) {
	u, okU := lookUp(m.UIDs, uid, false)
	g, okG := lookUp(m.GIDs, gid, false)
	return u, g, okU && okG
}

// Inside is who an owner outside of the namespace is in it.
func (m Map) Inside(uid, gid uint32) (u, g int, ok bool) {
	u, okU := lookUp(m.UIDs, uid, true)
	g, okG := lookUp(m.GIDs, gid, true)
	return u, g, okU && okG
}

func lookUp(list []specs.LinuxIDMapping, id uint32, back bool) (int, bool) {
	for _, m := range list {
		from, to := m.ContainerID, m.HostID
		if back {
			from, to = to, from
		}
		if id >= from && uint64(id) < uint64(from)+uint64(m.Size) {
			return int(to) + int(id-from), true
		}
	}
	return 0, false
}

// Same reports whether both map the same ids to the same.
func (m Map) Same(o Map) bool { return sameMap(m.UIDs, o.UIDs) && sameMap(m.GIDs, o.GIDs) }

func sameMap(a, b []specs.LinuxIDMapping) bool {
	sorted := func(l []specs.LinuxIDMapping) []specs.LinuxIDMapping {
		l = slices.Clone(l)
		slices.SortFunc(l, func(x, y specs.LinuxIDMapping) int { return int(int64(x.ContainerID) - int64(y.ContainerID)) })
		return l
	}
	return slices.Equal(sorted(a), sorted(b))
}

// New makes a user namespace, which lives as long as the descriptor, or whatever
// is in it.
func New(m Map) (int, error) {
	h, err := hold(m, unix.CLONE_NEWUSER)
	if err != nil {
		return -1, err
	}
	defer h.Close()
	return open(h, "user")
}

// NewNet makes a user namespace and a network namespace that is its own, and
// returns the latter; [Owner] leads from there to the other.
func NewNet(m Map) (int, error) {
	h, err := hold(m, unix.CLONE_NEWUSER|unix.CLONE_NEWNET)
	if err != nil {
		return -1, err
	}
	defer h.Close()
	return open(h, "net")
}

func hold(m Map, flags uintptr) (*holder.Holder, error) {
	h, err := holder.Start(flags)
	if err != nil {
		return nil, err
	}
	dir := "/proc/" + strconv.Itoa(h.PID) + "/"
	for _, f := range []struct {
		name string
		list []specs.LinuxIDMapping
	}{{"uid_map", m.UIDs}, {"gid_map", m.GIDs}} {
		if err := write(dir+f.name, mapText(f.list)); err != nil {
			h.Close()
			return nil, errs.Newf(errs.Invalid, "user namespace: mappings %v: %v", f.list, err)
		}
	}
	return h, nil
}

func open(h *holder.Holder, kind string) (int, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(h.PID)+"/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("user namespace: %w", err)
	}
	return fd, nil
}

func mapText(list []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, m := range list {
		_, _ = fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return b.String()
}

// write writes a file of the kernel's in one call, as it must be.
func write(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Write(fd, []byte(text))
	return err
}

// Owner opens the user namespace that another namespace belongs to; -1 if that
// is the one of the calling process.
func Owner(ns int) (int, error) {
	fd, err := unix.IoctlRetInt(ns, unix.NS_GET_USERNS)
	if err != nil {
		return -1, fmt.Errorf("owner of a namespace: %w", err)
	}
	var ours, theirs unix.Stat_t
	if err = unix.Stat("/proc/self/ns/user", &ours); err == nil {
		err = unix.Fstat(fd, &theirs)
	}
	if err != nil || ours.Ino == theirs.Ino && ours.Dev == theirs.Dev {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
