//go:build linux

package cgroup

import (
	"os"
	"strings"
)

// Own is the path of the group that this process is in. With version 1 it is
// that of the memory hierarchy, since paths may differ, and a [Group] has one.
func Own() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return ownPath(string(data)), nil
}

func ownPath(text string) string {
	best, rank := "/", 0
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		now := 1 // any hierarchy of version 1
		switch {
		case strings.Contains(","+f[1]+",", ",memory,"):
			now = 3
		case f[1] == "": // version 2, which may be there beside version 1
			now = 2
		}
		if now > rank {
			best, rank = f[2], now
		}
	}
	return best
}
