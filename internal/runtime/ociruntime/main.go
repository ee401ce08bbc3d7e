//go:build linux

// Package ociruntime is the launcher as an OCI runtime: one command a call,
// with runc's commands, flags and words, so that other engines (podman,
// dockerd, containerd) and the public conformance suites can use it. Nothing of
// the daemon's way to a container goes through here.
//
// What is known of a container is kept in a directory of its own below --root:
// its record (state.json), the socket at which its first process waits for
// start, and the place where its root is attached. A verb that changes
// something holds the directory's lock. The record is written before each step
// that makes something outside of the directory, so that delete finds all there
// is, whenever a create was killed.
package ociruntime

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/version"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Name is the program's name; an executable of this name is a runtime without
// being told so by its first argument, for engines that take one path only.
const Name = "skiff-runtime"

// Wanted tells whether a command line asks for the runtime, and returns what
// follows its name.
func Wanted(args []string) (rest []string, ok bool) {
	if filepath.Base(args[0]) == Name {
		return args[1:], true
	}
	if len(args) > 1 && args[1] == "runtime" {
		return args[2:], true
	}
	return nil, false
}

// app is what all verbs share.
type app struct {
	root    string
	rootSet bool
	systemd bool
	debug   bool
	log     *slog.Logger
	logFile bool // the log is not where the user looks
	in      *os.File
	out     io.Writer
	err     io.Writer
}

// exitError ends the program as a container's process did.
type exitError int

func (c exitError) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// Main runs one command and returns the exit code.
func Main(args []string) int {
	debug.SetGCPercent(400) // a few milliseconds of life
	a := &app{log: newLogger(os.Stderr, "text", false), in: os.Stdin, out: os.Stdout, err: os.Stderr}
	err := a.run(context.Background(), args)
	var code exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	a.log.Error(err.Error())
	if a.logFile {
		_, _ = fmt.Fprintln(a.err, err)
	}
	return 1
}

// run takes the command line apart: what concerns all verbs, a verb, its own.
func (a *app) run(ctx context.Context, args []string) error {
	fs := newFlags(Name)
	var logPath, logFormat, rootless string
	var showVersion bool
	fs.StringVar(&a.root, "root", defaultRoot(), "directory of the containers' state, which should not outlive a reboot")
	fs.StringVar(&logPath, "log", "", "file to log to instead of the standard error stream")
	fs.StringVar(&logFormat, "log-format", "text", "format of the log: text or json")
	fs.BoolVar(&a.debug, "debug", false, "log more")
	fs.BoolVar(&a.systemd, "systemd-cgroup", false, `let systemd make the control groups: cgroupsPath is "slice:prefix:name"`)
	fs.StringVar(&rootless, "rootless", "auto", "whether this is no real root: true, false or auto")
	fs.BoolVar(&showVersion, "version", false, "print the version")
	fs.BoolVar(&showVersion, "v", false, "print the version")
	rest, err := parse(fs, args, false)
	if errors.Is(err, flag.ErrHelp) {
		a.usage(fs)
		return nil
	}
	if err != nil {
		return err
	}
	fs.Visit(func(f *flag.Flag) { a.rootSet = a.rootSet || f.Name == "root" })
	if err := a.openLog(logPath, logFormat); err != nil {
		return err
	}
	if showVersion {
		return a.version()
	}
	if _, err := boolOrAuto(rootless); err != nil {
		return fmt.Errorf("--rootless: %w", err)
	}
	if a.root, err = filepath.Abs(a.root); err != nil {
		return err
	}
	if a.root == "/" {
		return errors.New("--root must not be /")
	}
	if len(rest) == 0 || rest[0] == "help" || rest[0] == "h" {
		a.usage(fs)
		return nil
	}
	for _, v := range verbs() {
		if v.name == rest[0] {
			return a.verb(ctx, v, rest[1:])
		}
	}
	return fmt.Errorf("no such command: %q", rest[0])
}

func (a *app) verb(ctx context.Context, v verb, args []string) error {
	fs := newFlags(v.name)
	do := v.setup(a, fs)
	rest, err := parse(fs, args, v.mixed)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintf(a.out, "usage: %s %s [options] %s\n\n%s\n\noptions:\n", Name, v.name, v.args, v.help)
		printFlags(a.out, fs)
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case len(rest) < v.min && v.min == v.max, v.max >= 0 && len(rest) > v.max && v.min == v.max:
		return fmt.Errorf("%s: %q requires exactly %d argument(s)", Name, v.name, v.min)
	case len(rest) < v.min:
		return fmt.Errorf("%s: %q requires a minimum of %d argument(s)", Name, v.name, v.min)
	case v.max >= 0 && len(rest) > v.max:
		return fmt.Errorf("%s: %q requires a maximum of %d argument(s)", Name, v.name, v.max)
	}
	return do(ctx, rest)
}

// A verb is one command. Its setup names its flags and returns what runs once
// they are read.
type verb struct {
	name, args, help string
	min, max         int  // arguments; max < 0: any number
	mixed            bool // flags may follow arguments
	setup            func(*app, *flag.FlagSet) func(context.Context, []string) error
}

func verbs() []verb {
	const id = "<container-id>"
	return []verb{
		{"checkpoint", id, "save a running container to disk, by CRIU", 1, 1, true, (*app).checkpoint},
		{"create", id, "create a container that waits for start", 1, 1, true, (*app).create},
		{"delete", id, "remove what is left of a container", 1, 1, true, (*app).delete},
		{"events", id, "print statistics and out-of-memory events", 1, 1, true, (*app).events},
		{"exec", id + " <command> [arguments]", "run one more process in a container", 1, -1, false, (*app).exec},
		{"features", "", "print what this runtime supports, as JSON", 0, 0, true, (*app).features},
		{"kill", id + " [signal]", "signal a container's first process (TERM unless named)", 1, 2, true, (*app).kill},
		{"list", "", "list the containers of the root directory", 0, 0, true, (*app).list},
		{"pause", id, "stop all processes of a container where they are", 1, 1, true, (*app).pause},
		{"ps", id + " [ps options]", "list the processes of a container", 1, -1, false, (*app).ps},
		{"restore", id, "make a container from what checkpoint saved", 1, 1, true, (*app).restore},
		{"resume", id, "let a paused container go on", 1, 1, true, (*app).resume},
		{"run", id, "create and start a container", 1, 1, true, (*app).runVerb},
		{"spec", "", "write a config.json to start from", 0, 0, true, (*app).spec},
		{"start", id, "execute the command of a created container", 1, 1, true, (*app).start},
		{"state", id, "print a container's state as JSON", 1, 1, true, (*app).state},
		{"update", id, "change a container's limits", 1, 1, true, (*app).update},
	}
}

func (a *app) usage(fs *flag.FlagSet) {
	_, _ = fmt.Fprintf(a.out, "usage: %s [options] <command> …\n\nThe OCI runtime of Skiff.\n\ncommands:\n", Name)
	for _, v := range verbs() {
		_, _ = fmt.Fprintf(a.out, "  %-12s %s\n", v.name, v.help)
	}
	_, _ = fmt.Fprintln(a.out, "\noptions:")
	printFlags(a.out, fs)
}

func (a *app) version() error {
	_, err := fmt.Fprintf(a.out, "%s version %s\ncommit: %s\nspec: %s\n", Name, version.Version, version.Commit, specs.Version)
	return err
}

func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); os.Geteuid() != 0 && strings.HasPrefix(dir, "/") {
		return filepath.Join(dir, Name)
	}
	return "/run/" + Name
}
