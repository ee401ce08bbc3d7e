// Command launch measures Skiff's launcher beside other OCI runtimes and
// bubblewrap, on one bundle with control groups and seccomp: whole processes, a
// start inside the shim, and the time of each of its stages.
//
//	launch -runs 40 -isolated 10
//
// All of it happens in mount and network namespaces of its own, below a control
// group of its own, and the runtimes take turns at each sample, so that what
// else the machine does touches all alike.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

const inside = "SKIFF_BENCH_INSIDE"

func main() {
	b := &bench{}
	flag.StringVar(&b.bin, "bin", "bin", "directory of skiff-shim and skiff-runtime")
	flag.StringVar(&b.peers, "peers", "runc,crun,bwrap", "programs to compare with, by name or path")
	flag.IntVar(&b.runs, "runs", 40, "samples of each figure, back to back")
	flag.IntVar(&b.isolated, "isolated", 10, "samples of each figure that has an idle time before it")
	flag.DurationVar(&b.gap, "gap", 2*time.Second, "that idle time")
	flag.Parse()
	run := b.run
	if os.Getenv(inside) == "" {
		run = reexec
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(1)
	}
}

// reexec runs the program again in fresh mount and network namespaces.
func reexec() error {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	return cmd.Run()
}

type bench struct {
	bin, peers     string
	runs, isolated int
	gap            time.Duration

	dir    string // on a tmpfs
	parent string // control group
	bundle *bundle
}

func (b *bench) run() (err error) {
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "skiff-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(b.dir)) }()
	if err := unix.Mount("tmpfs", b.dir, "tmpfs", 0, "mode=700"); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(b.dir, unix.MNT_DETACH) }()
	// In this namespace only: Debian's crun refuses version 1 beside an empty
	// version 2. That stays mounted: what it covers is the host's.
	if sys, err := cgroup.Detect(); err == nil && !sys.Unified() {
		_ = unix.Mount("/dev/null", "/sys/fs/cgroup/unified/cgroup.controllers", "", unix.MS_BIND, "")
	}
	b.parent = "/skiff-bench-" + strconv.Itoa(os.Getpid())
	if err := makeParent(b.parent); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeParent(b.parent)) }()
	if b.bundle, err = makeBundle(filepath.Join(b.dir, "bundle"), filepath.Join(b.bin, "skiff-runtime")); err != nil {
		return fmt.Errorf("make the bundle: %w", err)
	}
	fmt.Println(machine())
	rivals, err := b.rivals()
	if err != nil {
		return err
	}
	if err := b.wholeProcesses(rivals); err != nil {
		return err
	}
	return b.insideShim(context.Background())
}

// machine tells under what conditions this is measured.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	groups := "version 1"
	if sys, err := cgroup.Detect(); err == nil && sys.Unified() {
		groups = "version 2"
	}
	return fmt.Sprintf("kernel %s, control groups %s, load %s", unix.ByteSliceToString(u.Release[:]), groups, strings.TrimSpace(string(load)))
}

func makeParent(path string) error {
	sys, err := cgroup.Detect()
	if err != nil {
		return err
	}
	g, err := sys.Open(path)
	if err != nil {
		return err
	}
	return g.Create()
}

func removeParent(path string) error {
	sys, err := cgroup.Detect()
	if err != nil {
		return err
	}
	g, err := sys.Open(path)
	if err != nil {
		return err
	}
	for range 500 { // what is below it may still be going
		if err = g.Delete(); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// samples of one figure.
type samples []time.Duration

func (s samples) at(share int) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return float64(sorted[len(sorted)*share/100].Microseconds()) / 1000
}

func (s samples) median() float64 { return s.at(50) }
func (s samples) min() float64    { return s.at(0) }
