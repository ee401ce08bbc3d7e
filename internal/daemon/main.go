package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/version"
)

// Main is skiffd: `skiffd [flags]`, or `skiffd registry serve [flags]`. It
// returns the exit code: 0, 1 for a failure, 2 for a wrong command line.
func Main(args []string, out, errOut io.Writer) int {
	if len(args) > 0 && args[0] == "registry" {
		return registryMain(args[1:], out, errOut)
	}
	fs := pflag.NewFlagSet("skiffd", pflag.ContinueOnError)
	fs.SetOutput(errOut)
	fs.SortFlags = false
	DefaultConfig().AddFlags(fs)
	showVersion := fs.BoolP("version", "v", false, "Print version information and quit")
	fs.Usage = func() {
		_, _ = fmt.Fprintf(errOut, "Usage: skiffd [OPTIONS]\n       skiffd registry serve [OPTIONS]\n\nThe Skiff daemon.\n\nOptions:\n%s", fs.FlagUsages())
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintf(errOut, "skiffd: %v\nSee 'skiffd --help'.\n", err)
		return 2
	case fs.NArg() > 0:
		_, _ = fmt.Fprintf(errOut, "skiffd: unexpected argument %q\nSee 'skiffd --help'.\n", fs.Arg(0))
		return 2
	case *showVersion:
		_, _ = fmt.Fprintf(out, "Skiff version %s, build %s\n", version.Version, version.Commit)
		return 0
	}
	c, flags, err := parse(args)
	if err != nil {
		_, _ = fmt.Fprintf(errOut, "skiffd: %v\n", err)
		return 1
	}
	if c.Validate {
		_, _ = fmt.Fprintln(out, "configuration OK")
		return 0
	}
	log, level := newLogger(c, errOut)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, c, process{args: args, flags: flags, level: level, manager: serviceManager(), hup: catch(syscall.SIGHUP)}, log); err != nil {
		_, _ = fmt.Fprintf(errOut, "skiffd: %v\n", err)
		return 1
	}
	return 0
}

// newLogger returns the logger, and what its level can be changed by.
func newLogger(c *Config, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(c.level())
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), level
	}
	return slog.New(slog.NewTextHandler(w, o)), level
}

// level is what is logged at least.
func (c *Config) level() slog.Level {
	level, _ := logLevel(c.LogLevel) // checked by Finish
	if c.Debug {
		return slog.LevelDebug
	}
	return level
}

// logLevel knows docker's names, also of levels that nothing is logged at.
func logLevel(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "trace", "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warn":
		return slog.LevelWarn, true
	case "error", "fatal", "panic":
		return slog.LevelError, true
	}
	return 0, false
}

// lockPidfile writes the pid file and holds a lock on it, so that no second
// daemon works in the same run directory; a file left by a dead one is taken
// over.
func lockPidfile(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // a pid file is for others to read
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := make([]byte, 16)
		n, _ := f.Read(pid)
		_ = f.Close()
		return nil, errs.Newf(errs.Conflict, "process %s is already running (%s is locked)", strings.TrimSpace(string(pid[:n])), path)
	}
	err = errors.Join(f.Truncate(0), func() error { _, err := fmt.Fprintf(f, "%d\n", os.Getpid()); return err }())
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return func() {
		_ = os.Remove(path)
		_ = f.Close()
	}, nil
}
