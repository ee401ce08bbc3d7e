//go:build linux

package ociruntime

import (
	"flag"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// parse reads flags. Mixed ones may also follow arguments, up to "--".
func parse(fs *flag.FlagSet, args []string, mixed bool) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		left := fs.Args()
		if !mixed || len(left) == 0 {
			return append(rest, left...), nil
		}
		// Parse has taken a "--" away: what follows it are arguments.
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

func printFlags(w io.Writer, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		if f.Usage != "" {
			_, _ = fmt.Fprintf(w, "  --%-24s %s\n", f.Name, f.Usage)
		}
	})
}

// The functions below name a flag twice, by a long and a short name.

func stringFlag(fs *flag.FlagSet, p *string, name, short, usage string) {
	fs.StringVar(p, name, *p, usage)
	fs.StringVar(p, short, *p, "")
}

func boolFlag(fs *flag.FlagSet, p *bool, name, short, usage string) {
	fs.BoolVar(p, name, *p, usage)
	fs.BoolVar(p, short, *p, "")
}

// listFlag may be given more than once.
func listFlag(fs *flag.FlagSet, p *[]string, name, short, usage string) {
	add := func(s string) error { *p = append(*p, s); return nil }
	fs.Func(name, usage, add)
	if short != "" {
		fs.Func(short, "", add)
	}
}

// numberFlag sets *p only if it is given.
func numberFlag[T int64 | uint64](fs *flag.FlagSet, p **T, name, usage string) {
	fs.Func(name, usage, func(s string) error {
		n, err := number[T](s)
		*p = &n
		return err
	})
}

func number[T int64 | uint64](s string) (T, error) {
	var zero T
	if zero-1 > 0 { // no sign
		n, err := strconv.ParseUint(s, 10, 64)
		return T(n), err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return T(n), err
}

// bytesFlag takes sizes as "64m"; -1 is no limit.
func bytesFlag(fs *flag.FlagSet, p **int64, name, usage string) {
	fs.Func(name, usage, func(s string) error {
		n := int64(-1)
		if s != "-1" {
			var err error
			if n, err = units.RAMInBytes(s); err != nil {
				return fmt.Errorf("invalid value for %s: %w", name, err)
			}
		}
		*p = &n
		return nil
	})
}

// boolOrAuto is nil for "auto".
func boolOrAuto(s string) (*bool, error) {
	if s == "" || strings.EqualFold(s, "auto") {
		return nil, nil
	}
	b, err := strconv.ParseBool(s)
	return &b, err
}

// groupID reads one number of a group.
func groupID(s string) (uint32, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxUint32 {
		return 0, fmt.Errorf("additional-gids must be a positive number %s", s)
	}
	return uint32(n), nil
}
