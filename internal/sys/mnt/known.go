//go:build linux

package mnt

import "slices"

// KnownOptions lists the words that are understood with every file system;
// others go to it as they are.
func KnownOptions() []string {
	out := []string{
		"async", "bind", "defaults", "dirsync", "idmap", "iversion", "lazytime", "loud", "mand", "nofail", "noiversion", "nolazytime", "nomand",
		"rbind", "remount", "ridmap", "silent", "sync", "tmpcopyup",
	}
	for _, w := range []string{
		"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "nosymfollow", "symfollow",
		"noatime", "strictatime", "relatime", "atime", "norelatime", "nostrictatime", "private", "shared", "slave", "unbindable",
	} {
		out = append(out, w, "r"+w)
	}
	slices.Sort(out)
	return out
}
