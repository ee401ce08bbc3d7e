//go:build linux

package ociruntime

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

func (a *app) ps(fs *flag.FlagSet) func(context.Context, []string) error {
	format := "table"
	stringFlag(fs, &format, "format", "f", "table or json")
	return func(ctx context.Context, args []string) error {
		if format != "table" && format != "json" {
			return errors.New("invalid format option")
		}
		c, err := a.load(args[0])
		if err != nil {
			return err
		}
		g, err := c.group()
		if err != nil {
			return err
		}
		pids := []int{}
		if g.Exists() {
			if pids, err = g.Procs(); err != nil {
				return err
			}
		}
		if format == "json" {
			return a.printJSON(pids, "")
		}
		options := args[1:]
		if len(options) == 0 {
			options = []string{"-ef"}
		}
		text, err := exec.CommandContext(ctx, "ps", options...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
		lines, err := psLines(string(text), pids)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.out, strings.Join(lines, "\n"))
		return err
	}
}

// psLines keeps the title and the lines of the processes named.
func psLines(text string, pids []int) ([]string, error) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return nil, errors.New("couldn't find PID field in ps output")
	}
	out := lines[:1:1]
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if len(f) <= column {
			continue
		}
		pid, err := strconv.Atoi(f[column])
		if err != nil {
			return nil, fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			out = append(out, l)
		}
	}
	return out, nil
}
