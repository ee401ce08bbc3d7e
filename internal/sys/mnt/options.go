//go:build linux

package mnt

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Options are fstab-style mount options, taken apart.
type Options struct {
	Set, Clear       uint64 // MOUNT_ATTR_ flags of the mount itself
	RecSet, RecClear uint64 // and of everything below it (rro, rnosuid…)
	Propagation      uint64 // MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE; 0: not named
	RecPropagation   bool
	Bind, Recursive  bool
	Remount          bool   // what is mounted there already is changed
	CopyUp           bool   // tmpcopyup: a tmpfs starts with what it covers
	Subpath          string // of what is mounted, resolved inside of it
	IDMap, RecIDMap  bool   // owners are mapped (ridmap: below it too)
	Data             []Opt  // what only the file system understands
}

type flag struct {
	set, clear uint64
}

func attrOf(word string) (flag, bool) {
	switch word {
	case "ro":
		return flag{set: unix.MOUNT_ATTR_RDONLY}, true
	case "rw":
		return flag{clear: unix.MOUNT_ATTR_RDONLY}, true
	case "nosuid":
		return flag{set: unix.MOUNT_ATTR_NOSUID}, true
	case "suid":
		return flag{clear: unix.MOUNT_ATTR_NOSUID}, true
	case "nodev":
		return flag{set: unix.MOUNT_ATTR_NODEV}, true
	case "dev":
		return flag{clear: unix.MOUNT_ATTR_NODEV}, true
	case "noexec":
		return flag{set: unix.MOUNT_ATTR_NOEXEC}, true
	case "exec":
		return flag{clear: unix.MOUNT_ATTR_NOEXEC}, true
	case "nodiratime":
		return flag{set: unix.MOUNT_ATTR_NODIRATIME}, true
	case "diratime":
		return flag{clear: unix.MOUNT_ATTR_NODIRATIME}, true
	case "nosymfollow":
		return flag{set: unix.MOUNT_ATTR_NOSYMFOLLOW}, true
	case "symfollow":
		return flag{clear: unix.MOUNT_ATTR_NOSYMFOLLOW}, true
	case "noatime":
		return flag{unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME}, true
	case "strictatime":
		return flag{unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME}, true
	case "relatime", "atime", "norelatime", "nostrictatime":
		return flag{unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME}, true
	}
	return flag{}, false
}

// SubpathOption names a place in what is mounted: that alone is shown. Options that begin
// with "x-" are for programs, not for the kernel.
const SubpathOption = "x-skiff.subpath"

// ParseOptions sorts options out; later words outweigh earlier ones.
func ParseOptions(words []string) Options {
	var o Options
	for _, w := range words {
		if o.propagation(w) || o.attr(w) {
			continue
		}
		switch w {
		case "bind":
			o.Bind = true
		case "rbind":
			o.Bind, o.Recursive = true, true
		case "tmpcopyup":
			o.CopyUp = true
		case "idmap":
			o.IDMap, o.RecIDMap = true, false
		case "ridmap":
			o.IDMap, o.RecIDMap = true, true
		case "remount":
			o.Remount = true
		case "async":
			o.Data = slices.DeleteFunc(o.Data, func(d Opt) bool { return d == Opt{Key: "sync"} })
		case "defaults", "":
		case "silent", "loud", "iversion", "noiversion": // of mount(2): the kernel decides
		case "auto", "noauto", "nofail", "nouser", "_netdev": // of fstab: for who mounts at boot
		case "copy", "nocopy": // of engines, which have done so
		default:
			k, v, _ := strings.Cut(w, "=")
			if k == SubpathOption {
				o.Subpath = v
				continue
			}
			if strings.HasPrefix(k, "x-") {
				continue
			}
			o.Data = append(o.Data, Opt{k, v})
		}
	}
	return o
}

func (o *Options) propagation(w string) bool {
	rec := false
	v := propagationOf(w)
	if v == 0 {
		w, rec = strings.CutPrefix(w, "r")
		if v = propagationOf(w); v == 0 || !rec {
			return false
		}
	}
	o.Propagation, o.RecPropagation = v, rec
	return true
}

func propagationOf(w string) uint64 {
	switch w {
	case "shared":
		return unix.MS_SHARED
	case "slave":
		return unix.MS_SLAVE
	case "private":
		return unix.MS_PRIVATE
	case "unbindable":
		return unix.MS_UNBINDABLE
	}
	return 0
}

func (o *Options) attr(w string) bool {
	if f, ok := attrOf(w); ok {
		o.Set, o.Clear = o.Set&^f.clear|f.set, o.Clear&^f.set|f.clear
		return true
	}
	if rest, ok := strings.CutPrefix(w, "r"); ok {
		if f, ok := attrOf(rest); ok {
			o.RecSet, o.RecClear = o.RecSet&^f.clear|f.set, o.RecClear&^f.set|f.clear
			return true
		}
	}
	return false
}
