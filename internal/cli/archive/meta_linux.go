package archive

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

func linkedInode(info fs.FileInfo) (inode, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 || !info.Mode().IsRegular() {
		return inode{}, false
	}
	return inode{uint64(st.Dev), st.Ino}, true //nolint:unconvert // narrower on other architectures
}

func portableMode(mode int64) int64 { return mode }

// capability is a file's capability attribute, which a copy would lose.
func capability(file string, info fs.FileInfo) string {
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return ""
	}
	var b [64]byte
	n, err := unix.Lgetxattr(file, "security.capability", b[:])
	if err != nil || n <= 0 {
		return ""
	}
	return string(b[:n])
}
