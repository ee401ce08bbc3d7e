package archive

import (
	"io/fs"
	"syscall"
)

func linkedInode(info fs.FileInfo) (inode, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 || !info.Mode().IsRegular() {
		return inode{}, false
	}
	return inode{uint64(st.Dev), st.Ino}, true
}

func portableMode(mode int64) int64 { return mode }

func capability(string, fs.FileInfo) string { return "" }
