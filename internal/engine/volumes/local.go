package volumes

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/docker/go-units"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// local are the local driver's options, which are docker's, taken apart.
type local struct {
	fstype, device, o string // of a file system to be mounted
	size              uint64 // that the volume's own directory may hold; 0 is no limit
}

// mounts tells a file system of its own from a plain directory.
func (l local) mounts() bool { return l.fstype != "" || l.device != "" }

func (l local) bind() bool {
	return slices.ContainsFunc(strings.Split(l.o, ","), func(w string) bool { return w == "bind" || w == "rbind" })
}

// inMemory tells that what is in the file system goes with its last user.
func (l local) inMemory() bool { return !l.bind() && (l.fstype == "tmpfs" || l.fstype == "ramfs") }

// parse takes the options of a volume that exists apart.
func parse(opts map[string]string) (local, error) {
	l := local{fstype: opts["type"], device: opts["device"], o: opts["o"]}
	v, ok := opts["size"]
	if !ok {
		return l, nil
	}
	size, err := units.RAMInBytes(v)
	if err != nil {
		return l, errs.With(errs.Invalid, err)
	}
	l.size = uint64(max(size, 0)) //nolint:gosec // not negative
	return l, nil
}

// check parses the options of a volume that is to be made, and refuses what
// could never be mounted.
func check(opts map[string]string) (local, error) {
	for k := range opts {
		if !slices.Contains([]string{"type", "device", "o", "size"}, k) {
			return local{}, errs.Newf(errs.Invalid, "invalid option: %q", k)
		}
	}
	l, err := parse(opts)
	if err != nil {
		return l, err
	}
	if err := l.checkShare(); err != nil {
		return l, err
	}
	for _, need := range [][2]string{{"device", "type"}, {"type", "device"}, {"o", "device"}, {"o", "type"}} {
		_, set := opts[need[0]]
		if _, ok := opts[need[1]]; set && !ok {
			return l, errs.Newf(errs.Invalid, "missing required option: %q", need[1])
		}
	}
	switch {
	case l.bind() && !filepath.IsAbs(l.device):
		return l, errs.Newf(errs.Invalid, "a bind needs an absolute path as device, not %q", l.device)
	case l.mounts() && l.device == "":
		return l, errs.New(errs.Invalid, "missing device in volume options")
	case l.mounts() && l.size > 0:
		return l, errs.New(errs.Unsupported, "option size limits the volume's own directory: with type and device it is not supported")
	}
	return l, nil
}

// checkShare refuses a port where it would be taken for a part of the name.
func (l local) checkShare() error {
	if l.fstype != "cifs" || l.device == "" {
		return nil
	}
	u, err := url.Parse(l.device)
	if err != nil {
		return errs.Newf(errs.Invalid, "error parsing mount device url: %w", err)
	}
	if u.Port() != "" {
		return errs.New(errs.Invalid, "port not allowed in CIFS device URL, include 'port' in 'o='")
	}
	return nil
}

// masked hides the passwords in what is told of a mount.
func (l local) masked(text string) string {
	for _, w := range strings.Split(l.o, ",") {
		k, v, _ := strings.Cut(w, "=")
		if v != "" && slices.Contains([]string{"password", "pass", "password2"}, k) {
			text = strings.ReplaceAll(text, w, k+"=********")
		}
	}
	return text
}

// diskUsage sums the blocks of the files below dir, each inode once; what
// cannot be read counts nothing.
func diskUsage(dir string) int64 {
	var total int64
	seen := map[[2]uint64]bool{}
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go meanwhile
		}
		i, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		st, ok := i.Sys().(*syscall.Stat_t)
		if !ok || i.IsDir() {
			return nil
		}
		key := [2]uint64{st.Dev, st.Ino}
		if st.Nlink > 1 && seen[key] {
			return nil
		}
		seen[key] = true
		if i.Mode()&os.ModeType == 0 {
			total += min(i.Size(), st.Blocks*512)
		}
		return nil
	})
	return total
}
