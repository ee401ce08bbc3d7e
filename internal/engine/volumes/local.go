package volumes

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// mountOf turns the local driver's options into a mount; nil for a plain
// directory. The options are docker's: type, device, o.
func mountOf(name string, opts map[string]string) (*Mount, error) {
	if len(opts) == 0 {
		return nil, nil
	}
	for k := range opts {
		switch k {
		case "type", "device", "o":
		case "size":
			return nil, errs.Newf(errs.Unsupported, "create %s: quotas on local volumes (option size) are not supported: use o=size=… with type=tmpfs", name)
		default:
			return nil, errs.Newf(errs.Invalid, "create %s: invalid option: %q", name, k)
		}
	}
	typ, device := opts["type"], opts["device"]
	flags := strings.FieldsFunc(opts["o"], func(r rune) bool { return r == ',' })
	bind := slices.ContainsFunc(flags, func(o string) bool { return o == "bind" || o == "rbind" })
	switch {
	case bind:
		if !filepath.IsAbs(device) {
			return nil, errs.Newf(errs.Invalid, "create %s: a bind needs an absolute path as device, not %q", name, device)
		}
		return &Mount{Type: "bind", Source: filepath.Clean(device), Options: flags}, nil
	case typ == "tmpfs":
		return &Mount{Type: "tmpfs", Source: "tmpfs", Options: flags}, nil
	case typ == "":
		return nil, errs.Newf(errs.Invalid, "create %s: missing required option: \"type\"", name)
	case device == "":
		return nil, errs.Newf(errs.Invalid, "create %s: missing device in volume options", name)
	}
	return &Mount{Type: typ, Source: device, Options: flags}, nil
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
