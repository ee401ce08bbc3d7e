//go:build linux

package criu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Inspect finds out what of a container lies outside of it; pid is its first
// process.
func Inspect(pid int) (*Meta, error) {
	proc := "/proc/" + strconv.Itoa(pid)
	m := new(Meta)
	inside, err := mountsOf(proc + "/mountinfo")
	if err != nil {
		return nil, err
	}
	ours, err := mountsOf("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	m.Mounts = outside(inside, ours)
	for fd := range m.Streams {
		if m.Streams[fd], err = streamName(proc, fd, inside); err != nil {
			return nil, err
		}
	}
	var theirs, host unix.Stat_t
	if err := errors.Join(unix.Stat(proc+"/ns/net", &theirs), unix.Stat("/proc/self/ns/net", &host)); err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	if theirs.Ino != host.Ino {
		m.Net = fmt.Sprintf("net[%d]", theirs.Ino)
	}
	return m, nil
}

// mountEntry is a line of mountinfo.
type mountEntry struct {
	id, device, root, at, fstype string
}

func mountsOf(file string) ([]mountEntry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseMounts(data)
}

func parseMounts(data []byte) ([]mountEntry, error) {
	var out []mountEntry
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+2 {
			return nil, fmt.Errorf("mountinfo: %q", lines.Text())
		}
		out = append(out, mountEntry{fields[0], fields[2], unescape(fields[3]), unescape(fields[4]), fields[dash+1]})
	}
	return out, lines.Err()
}

// unescape undoes the kernel's octal escapes of white space.
func unescape(s string) string {
	for code, char := range map[string]string{`\040`: " ", `\011`: "\t", `\012`: "\n"} {
		s = strings.ReplaceAll(s, code, char)
	}
	return strings.ReplaceAll(s, `\134`, `\`)
}

// outside lists the mounts that show a file system of the host's. What the
// kernel makes for each namespace, or shows everywhere, criu makes anew.
func outside(inside, ours []mountEntry) []Mount {
	var out []Mount
	for _, m := range inside {
		if m.at == "/" || slices.Contains([]string{"proc", "sysfs", "mqueue", "cgroup", "cgroup2", "devpts"}, m.fstype) {
			continue
		}
		if slices.ContainsFunc(ours, func(o mountEntry) bool { return o.device == m.device }) {
			out = append(out, Mount{Destination: m.at, Null: m.fstype == "devtmpfs" && m.root == "/null"})
		}
	}
	return out
}

// streamName names a descriptor that is of no mount of the container's, as criu does.
func streamName(proc string, fd int, inside []mountEntry) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(proc, "fd", strconv.Itoa(fd)), &st); err != nil {
		return "", nil //nolint:nilerr // closed, which is fine
	}
	info, err := os.ReadFile(filepath.Join(proc, "fdinfo", strconv.Itoa(fd)))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(info)) {
		id, ok := strings.CutPrefix(line, "mnt_id:")
		if !ok {
			continue
		}
		id = strings.TrimSpace(id)
		if slices.ContainsFunc(inside, func(m mountEntry) bool { return m.id == id }) {
			return "", nil
		}
		n, err := strconv.Atoi(id)
		if err != nil {
			return "", fmt.Errorf("descriptor %d: mount %q", fd, id)
		}
		return fmt.Sprintf("file[%x:%x]", n, st.Ino), nil
	}
	return "", fmt.Errorf("descriptor %d is on no mount", fd)
}
