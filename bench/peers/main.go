// Command peers measures container engines side by side in one run: each in
// network and mount namespaces of its own, driven by its own command line.
//
//	peers -runs 20 -engines skiff,docker
//
// It prints medians and, for each figure, how many times skiff's the peer's is.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if filepath.Base(os.Args[0]) == "runc" {
		os.Exit(wrapRunc()) // see runc.go
	}
	runs := flag.Int("runs", 15, "samples of each figure")
	gap := flag.Duration("gap", 100*time.Millisecond, "idle time before each sample: hot loops flatter everybody")
	only := flag.String("engines", "skiff,docker", "which engines, comma separated")
	figures := flag.String("figures", "", "which figures (substring); empty is all")
	flag.Parse()
	if os.Getenv("SKIFF_BENCH_INSIDE") == "" {
		os.Exit(reexec())
	}
	if err := run(*runs, *gap, strings.Split(*only, ","), *figures); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// reexec runs the program again in fresh network and mount namespaces.
func reexec() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "SKIFF_BENCH_INSIDE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		return 1
	}
	return 0
}

type figure struct {
	name   string
	unit   string
	sample func(e *engine) (float64, error)
	runs   int // instead of -runs
}

func run(runs int, gap time.Duration, names []string, only string) error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("lo: %w: %s", err, out)
	}
	dir, err := os.MkdirTemp("", "skiff-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var engines []*engine
	for _, n := range names {
		e, why := newEngine(n, filepath.Join(dir, n))
		if e == nil {
			fmt.Printf("skipping %s: %s\n", n, why)
			continue
		}
		engines = append(engines, e)
	}
	defer func() {
		for _, e := range engines {
			e.stop()
		}
	}()
	for _, e := range engines {
		if err := e.start(); err != nil {
			return fmt.Errorf("start %s: %w", e.name, err)
		}
		if err := e.makeImage(dir); err != nil {
			return fmt.Errorf("%s: make the image: %w", e.name, err)
		}
		v, _ := e.output("version", "--format", "{{.Server.Version}}")
		fmt.Printf("%s: %s\n", e.name, strings.TrimSpace(v))
	}
	if len(engines) == 0 {
		return fmt.Errorf("no engine to measure")
	}
	header := fmt.Sprintf("\n%-34s", "median (whole commands)")
	for _, e := range engines {
		header += fmt.Sprintf("%14s", e.name)
	}
	fmt.Println(header + "   ratio")
	for _, f := range allFigures(dir) {
		if !strings.Contains(f.name, only) {
			continue
		}
		if err := measure(f, engines, runs, gap); err != nil {
			fmt.Printf("%-34s %v\n", f.name, err)
		}
	}
	return nil
}

// measure samples the engines in turn, so that what else the machine does
// touches all alike.
func measure(f figure, engines []*engine, runs int, gap time.Duration) error {
	if f.runs > 0 {
		runs = min(runs, f.runs)
	}
	values := make([][]float64, len(engines))
	for r := range runs + 1 {
		for i, e := range engines {
			time.Sleep(gap)
			v, err := f.sample(e)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			if r > 0 || runs == 1 { // the first warms caches up
				values[i] = append(values[i], v)
			}
		}
	}
	line := fmt.Sprintf("%-34s", f.name)
	for i := range engines {
		line += fmt.Sprintf("%11.1f %-2s", median(values[i]), f.unit)
	}
	if len(engines) > 1 && median(values[0]) > 0 {
		line += fmt.Sprintf("   %.1fx", median(values[1])/median(values[0]))
	}
	fmt.Println(line)
	return nil
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
