//go:build linux

package mnt

import "slices"

// KnownOptions lists the words [ParseOptions] acts on itself; others go to the
// file system as they are.
func KnownOptions() []string {
	out := []string{"async", "bind", "defaults", "idmap", "nofail", "rbind", "ridmap", "tmpcopyup"}
	for _, w := range []string{
		"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime", "nosymfollow", "symfollow",
		"noatime", "strictatime", "relatime", "atime", "norelatime", "nostrictatime", "private", "shared", "slave", "unbindable",
	} {
		out = append(out, w, "r"+w)
	}
	slices.Sort(out)
	return out
}
