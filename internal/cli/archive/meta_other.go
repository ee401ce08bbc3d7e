//go:build !linux && !darwin

package archive

import "io/fs"

func linkedInode(fs.FileInfo) (inode, bool) { return inode{}, false }

// portableMode makes everything executable where files have no such bit.
func portableMode(mode int64) int64 { return mode&^0o777 | mode&0o755 | 0o111 }

func capability(string, fs.FileInfo) string { return "" }
