//go:build linux

package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// summary is what state and list print: the specification's fields and runc's.
type summary struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	Status      status            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func (c *container) summary() (*summary, error) {
	st, err := c.status()
	if err != nil {
		return nil, err
	}
	s := &summary{
		Version: specs.Version, ID: c.ID, PID: c.PID, Status: st, Bundle: c.Bundle, Rootfs: c.Rootfs,
		Created: c.Created, Annotations: c.Spec.Annotations,
	}
	if st == stopped {
		s.PID = 0
	}
	return s, nil
}

func (a *app) state(*flag.FlagSet) func(context.Context, []string) error {
	return func(_ context.Context, args []string) error {
		c, err := a.load(args[0])
		if err != nil {
			return err
		}
		s, err := c.summary()
		if err != nil {
			return err
		}
		return a.printJSON(s, "  ")
	}
}

func (a *app) printJSON(v any, indent string) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", indent)
	return enc.Encode(v)
}

func (a *app) list(fs *flag.FlagSet) func(context.Context, []string) error {
	format, quiet := "table", false
	stringFlag(fs, &format, "format", "f", "table or json")
	boolFlag(fs, &quiet, "quiet", "q", "print ids only")
	return func(context.Context, []string) error {
		all, err := a.containers()
		if err != nil {
			return err
		}
		switch {
		case quiet:
			for _, s := range all {
				_, _ = fmt.Fprintln(a.out, s.ID)
			}
			return nil
		case format == "json":
			return a.printJSON(all, "")
		case format != "table":
			return errors.New("invalid format option")
		}
		w := tabwriter.NewWriter(a.out, 12, 1, 3, ' ', 0)
		_, _ = fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range all {
			_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.PID, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return w.Flush()
	}
}

// containers tells of all there are. One that cannot be read does not hide the
// others.
func (a *app) containers() ([]*summary, error) {
	entries, err := os.ReadDir(a.root)
	if errors.Is(err, fs.ErrNotExist) && !a.rootSet {
		return nil, nil // nothing was created yet
	}
	if err != nil {
		return nil, err
	}
	var out []*summary
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".new-") {
			continue
		}
		st, err := e.Info()
		if err != nil {
			continue // just deleted
		}
		c, err := a.load(e.Name())
		var s *summary
		if err == nil {
			s, err = c.summary()
		}
		if err != nil {
			_, _ = fmt.Fprintf(a.err, "load container %s: %v\n", e.Name(), err)
			continue
		}
		s.Owner = owner(st)
		out = append(out, s)
	}
	return out, nil
}

func owner(st fs.FileInfo) string {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	uid := strconv.FormatUint(uint64(sys.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "#" + uid
}
