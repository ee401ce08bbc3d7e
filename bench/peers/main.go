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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/bench/peer"
)

func main() {
	if peer.IsRunc() {
		os.Exit(peer.WrapRunc())
	}
	runs := flag.Int("runs", 15, "samples of each figure")
	gap := flag.Duration("gap", 100*time.Millisecond, "idle time before each sample: hot loops flatter everybody")
	only := flag.String("engines", "skiff,docker", "which engines, comma separated")
	figures := flag.String("figures", "", "which figures (substring); empty is all")
	flag.Parse()
	if !peer.Inside() {
		os.Exit(peer.Reexec())
	}
	if err := run(*runs, *gap, strings.Split(*only, ","), *figures); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

type figure struct {
	name   string
	unit   string
	sample func(e *peer.Engine) (float64, error)
	runs   int // instead of -runs
}

func run(runs int, gap time.Duration, names []string, only string) error {
	if err := peer.LoopbackUp(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "skiff-bench-")
	if err != nil {
		return err
	}
	var engines []*peer.Engine
	for _, n := range names {
		e, why := peer.New(n, filepath.Join(dir, n))
		if e == nil {
			fmt.Printf("skipping %s: %s\n", n, why)
			continue
		}
		engines = append(engines, e)
	}
	stop := sync.OnceFunc(func() {
		for _, e := range engines {
			e.Stop()
		}
		_ = os.RemoveAll(dir)
	})
	defer stop()
	peer.OnSignal(stop)
	for _, e := range engines {
		if err := e.Start(); err != nil {
			return fmt.Errorf("start %s: %w", e.Name, err)
		}
		if err := e.MakeImage(dir); err != nil {
			return fmt.Errorf("%s: make the image: %w", e.Name, err)
		}
		v, _ := e.Output("version", "--format", "{{.Server.Version}}")
		fmt.Printf("%s: %s\n", e.Name, strings.TrimSpace(v))
	}
	if len(engines) == 0 {
		return fmt.Errorf("no engine to measure")
	}
	header := fmt.Sprintf("\n%-34s", "median (whole commands)")
	for _, e := range engines {
		header += fmt.Sprintf("%14s", e.Name)
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
func measure(f figure, engines []*peer.Engine, runs int, gap time.Duration) error {
	if f.runs > 0 {
		runs = min(runs, f.runs)
	}
	values := make([][]float64, len(engines))
	for r := range runs + 1 {
		for i, e := range engines {
			time.Sleep(gap)
			v, err := f.sample(e)
			if err != nil {
				return fmt.Errorf("%s: %w", e.Name, err)
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
