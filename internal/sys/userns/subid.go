//go:build linux

package userns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// DefaultUser is whose ids docker's "default" means.
const DefaultUser = "dockremap"

const (
	firstAllotted = 100000 // as useradd does, from login.defs(5)
	allotted      = 65536
	maxExtents    = 340     // what the kernel takes, from user_namespaces(7)
	maxFile       = 4 << 20 // bytes
)

// Subordinate finds the ids that a user may give to user namespaces, in subuid(5)
// and subgid(5) below etc. who is "user" or "user:group", by name or number; the
// group is the user's namesake by default.
func Subordinate(etc, who string) (Map, error) {
	user, group, named := strings.Cut(who, ":")
	if user == "" || named && group == "" || strings.Contains(group, ":") {
		return Map{}, errs.Newf(errs.Invalid, "invalid user %q for user namespaces: want USER or USER:GROUP", who)
	}
	users, err := aliases(filepath.Join(etc, "passwd"), user)
	if err != nil {
		return Map{}, err
	}
	groups := users
	if named {
		if groups, err = aliases(filepath.Join(etc, "group"), group); err != nil {
			return Map{}, err
		}
	}
	var m Map
	if m.UIDs, err = mappings(filepath.Join(etc, "subuid"), users, who); err == nil {
		m.GIDs, err = mappings(filepath.Join(etc, "subgid"), groups, who)
	}
	return m, err
}

// SubordinateDefault is Subordinate of [DefaultUser], which is allotted a range
// beyond all others where it has none.
func SubordinateDefault(etc string) (Map, error) {
	for _, name := range []string{"subuid", "subgid"} {
		if err := allot(filepath.Join(etc, name), DefaultUser); err != nil {
			return Map{}, err
		}
	}
	return Subordinate(etc, DefaultUser)
}

func allot(file, user string) error {
	ranges, err := readRanges(file)
	if err != nil {
		return err
	}
	start := uint64(firstAllotted)
	for _, r := range ranges {
		if r.owner == user {
			return nil
		}
		start = max(start, r.start+r.count)
	}
	if start+allotted > 1<<32-1 {
		return errs.Newf(errs.Invalid, "%s has no room for %d more ids", file, allotted)
	}
	// One write: who else adds a line at this moment loses none.
	f, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%s:%d:%d\n", user, start, allotted)
	last := make([]byte, 1)
	if st, err := f.Stat(); err == nil && st.Size() > 0 {
		if _, err := f.ReadAt(last, st.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}

// aliases are the name and the number of a user or a group.
func aliases(file, who string) ([]string, error) {
	out := []string{who}
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 || f[0] == "" || f[0] != who && f[2] != who {
			continue
		}
		for _, a := range []string{f[0], f[2]} {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

type idRange struct {
	owner        string
	start, count uint64
}

func mappings(file string, owners []string, who string) ([]specs.LinuxIDMapping, error) {
	ranges, err := readRanges(file)
	if err != nil {
		return nil, err
	}
	var out []specs.LinuxIDMapping
	next := uint64(0)
	for _, r := range ranges {
		if !slices.Contains(owners, r.owner) || r.count == 0 {
			continue
		}
		if r.start == 0 {
			return nil, errs.Newf(errs.Invalid, "%s gives %s ids from 0 on: root of the host is nobody's in a container", file, r.owner)
		}
		out = append(out, specs.LinuxIDMapping{ContainerID: uint32(next), HostID: uint32(r.start), Size: uint32(r.count)}) //nolint:gosec // checked below and by parseRanges
		if next += r.count; next > 1<<32-1 {
			return nil, errs.Newf(errs.Invalid, "%s gives %s more ids than there are", file, who)
		}
	}
	switch {
	case len(out) == 0:
		return nil, errs.Newf(errs.Invalid, "no ids for %s in %s: add a line NAME:FIRST:COUNT", who, file)
	case len(out) > maxExtents:
		return nil, errs.Newf(errs.Invalid, "%s gives %s %d ranges, and the kernel takes %d", file, who, len(out), maxExtents)
	}
	return out, nil
}

func readRanges(file string) ([]idRange, error) {
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	out, err := parseRanges(data)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "%s: %w", file, err)
	}
	return out, nil
}

func parseRanges(data []byte) ([]idRange, error) {
	var out []idRange
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, ":")
		if len(f) != 3 || f[0] == "" {
			return nil, fmt.Errorf("line %d: want NAME:FIRST:COUNT, not %q", n, line)
		}
		start, err := strconv.ParseUint(f[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q is no id", n, f[1])
		}
		count, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || start+count > 1<<32-1 {
			return nil, fmt.Errorf("line %d: %s ids from %d on are too many", n, f[2], start)
		}
		out = append(out, idRange{f[0], start, count})
	}
	return out, lines.Err()
}

// read reads a file of sane size; one that is missing is empty.
func read(file string) ([]byte, error) {
	st, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, errs.Newf(errs.Invalid, "%s is not a regular file of at most %d bytes", file, maxFile)
	}
	return os.ReadFile(file)
}
