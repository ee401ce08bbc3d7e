package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// Top lists a container's processes with the host's ps.
func (s *Service) Top(ctx context.Context, id string, psArgs []string) (container.TopResponse, error) {
	if len(psArgs) == 0 {
		psArgs = []string{"-ef"}
	}
	if err := checkPSArgs(psArgs); err != nil {
		return container.TopResponse{}, err
	}
	c, err := s.index.get(id)
	if err != nil {
		return container.TopResponse{}, err
	}
	v := c.look()
	switch {
	case v.st.Phase == Restarting:
		return container.TopResponse{}, errs.Newf(errs.Conflict, "Container %s is restarting, wait until the container is running", c.id)
	case !v.st.Phase.live():
		return container.TopResponse{}, errNotRunning(c.id)
	}
	pids, err := s.o.Runtime.PIDs(ctx, c.id)
	if err != nil {
		return container.TopResponse{}, err
	}
	out, err := runPS(ctx, psArgs, pids)
	if err != nil {
		return container.TopResponse{}, err
	}
	list, err := parsePS(out, pids)
	if err != nil {
		return container.TopResponse{}, err
	}
	s.event(&v.rec, apievents.ActionTop, nil)
	return list, nil
}

// runPS runs ps for the processes, or, where its arguments do not go with a
// choice of processes, for all.
func runPS(ctx context.Context, args []string, pids []int) ([]byte, error) {
	list := make([]string, len(pids))
	for i, p := range pids {
		list[i] = strconv.Itoa(p)
	}
	out, err := exec.CommandContext(ctx, "ps", append(slices.Clone(args), "-q"+strings.Join(list, ","))...).Output()
	if err == nil {
		return out, nil
	}
	out, err = exec.CommandContext(ctx, "ps", args...).Output()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		if line, _, _ := bytes.Cut(ee.Stderr, []byte("\n")); len(line) > 0 {
			err = errors.New(string(line))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ps: %w", err)
	}
	return out, nil
}

// A column renamed to PID would be mistaken for the real one.
var psRename = regexp.MustCompile(`\s+([^\s]*)=\s*(PID[^\s]*)`)

func checkPSArgs(args []string) error {
	for _, m := range psRename.FindAllStringSubmatch(strings.Join(args, " "), -1) {
		if m[1] != "pid" {
			return errs.Newf(errs.Invalid, `specifying "%s=%s" is not allowed`, m[1], m[2])
		}
	}
	return nil
}

// parsePS keeps the lines of the processes, and of their threads ("-" for a
// process id, with m among the arguments).
func parsePS(out []byte, pids []int) (container.TopResponse, error) {
	var r container.TopResponse
	lines := strings.Split(string(out), "\n")
	r.Titles = asciiFields(lines[0])
	col := slices.Index(r.Titles, "PID")
	if col < 0 {
		return r, errs.New(errs.Invalid, "Couldn't find PID field in ps output")
	}
	wanted := false
	for _, line := range lines[1:] {
		f := asciiFields(line)
		if len(f) <= col {
			continue
		}
		if f[col] != "-" {
			pid, err := strconv.Atoi(f[col])
			if err != nil {
				return r, fmt.Errorf("unexpected pid '%s' in ps output: %w", f[col], err)
			}
			wanted = slices.Contains(pids, pid)
		}
		if !wanted {
			continue
		}
		n := len(r.Titles)
		if len(f) > n { // the command's arguments are one field
			f = append(f[:n-1:n-1], strings.Join(f[n-1:], " "))
		}
		r.Processes = append(r.Processes, f)
	}
	return r, nil
}

// asciiFields splits at ASCII space only: ps prints names in any script.
func asciiFields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("\t\n\f\r ", r) })
}
