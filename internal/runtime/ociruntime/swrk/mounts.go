//go:build linux

package swrk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/cgroup"
	"github.com/skiff-containers/skiff/internal/sys/mnt"
)

// What a container has mounted from outside is not saved, only its place: on
// the way back the same thing is mounted there again.

type external struct{ key, value string }

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.ContainsFunc(m.Options, func(o string) bool { return o == "bind" || o == "rbind" })
}

// maskKey names the null device over masked files, of which there is one.
const maskKey = "/dev/null"

// dumpExternals names what is from outside in the container of process pid.
func dumpExternals(s *specs.Spec, groups []cgroup.Mount, pid int) ([]external, error) {
	var out []external
	for _, e := range fromOutside(s, groups) {
		out = append(out, external{e.key, e.key})
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	for _, p := range s.Linux.MaskedPaths {
		st, err := os.Stat(root + path.Clean("/"+p))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case !st.IsDir():
			out = append(out, external{path.Clean("/" + p), maskKey})
		}
	}
	return out, nil
}

// restoreExternals says what takes those places.
func restoreExternals(s *specs.Spec, groups []cgroup.Mount) []external {
	out := fromOutside(s, groups)
	if len(s.Linux.MaskedPaths) > 0 {
		out = append(out, external{maskKey, "/dev/null"})
	}
	return out
}

// fromOutside lists bind mounts, and the control groups of version 1 that the
// launcher binds where the container has no namespace for them.
func fromOutside(s *specs.Spec, groups []cgroup.Mount) []external {
	var out []external
	own := slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	for _, m := range s.Mounts {
		dest := path.Clean("/" + m.Destination)
		switch {
		case isBind(m):
			out = append(out, external{dest, m.Source})
		case m.Type == "cgroup" && !own:
			for _, g := range groups {
				if g.Name != "" { // version 2 is a mount of its own
					out = append(out, external{dest + "/" + g.Name, g.Host + s.Linux.CgroupsPath})
				}
			}
		}
	}
	return out
}

func hierarchies() ([]cgroup.Mount, error) {
	sys, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	return sys.Mounts(), nil
}

func mountMap(list []external) []*rpc.ExtMountMap {
	var out []*rpc.ExtMountMap
	for _, e := range list {
		out = append(out, &rpc.ExtMountMap{Key: &e.key, Val: &e.value})
	}
	return out
}

// makePlaces makes the mount points of a fresh root that the launcher would
// have made. criu itself makes those on file systems that it restores.
func makePlaces(s *specs.Spec, root string) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	var covered []string
	for _, m := range s.Mounts {
		dest := path.Clean("/" + m.Destination)
		below := slices.ContainsFunc(covered, func(c string) bool { return strings.HasPrefix(dest, c+"/") })
		if !below {
			dir := true
			if isBind(m) {
				st, err := os.Stat(m.Source)
				if err != nil {
					return err
				}
				dir = st.IsDir()
			}
			place, _, err := mnt.Target(fd, dest, dir, 0)
			if err != nil {
				return fmt.Errorf("mount point %s: %w", dest, err)
			}
			_ = unix.Close(place)
		}
		covered = append(covered, dest)
	}
	return nil
}
