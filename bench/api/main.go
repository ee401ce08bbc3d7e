// Command api measures the Engine API of container engines side by side: each
// call with few and with many containers, and all of them under load.
//
//	api -sizes 10,100,1000 -load "500 60" -engines skiff,docker
//
// The engines take turns at each sample. It prints medians and 99th percentiles
// over a kept connection, the processor time that the engine's processes took,
// the size of the answer, and how the cost grew beside the answer.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/bench/peer"
)

type options struct {
	engines string
	sizes   string
	runs    int
	only    string
	load    string
	noCLI   bool
	grow    time.Duration
}

func main() {
	if peer.IsRunc() {
		os.Exit(peer.WrapRunc())
	}
	var o options
	flag.StringVar(&o.engines, "engines", "skiff,docker", "which engines, comma separated")
	flag.StringVar(&o.sizes, "sizes", "10,100,1000", "with how many containers and names of images")
	flag.IntVar(&o.runs, "runs", 11, "samples of each call")
	flag.StringVar(&o.only, "calls", "", "which calls (substring); empty is all")
	flag.StringVar(&o.load, "load", "500 20", "clients and seconds of the load; empty is none")
	flag.DurationVar(&o.grow, "grow", 50*time.Second, "how long an engine may take to make each size's containers")
	flag.BoolVar(&o.noCLI, "no-cli", false, "leave the command lines out")
	flag.Parse()
	if !peer.Inside() {
		os.Exit(peer.Reexec())
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	if err := peer.LoopbackUp(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "skiff-bench-")
	if err != nil {
		return err
	}
	var subjects []*subject
	stop := sync.OnceFunc(func() {
		for _, s := range subjects {
			s.Stop()
		}
		_ = os.RemoveAll(dir)
	})
	defer stop()
	peer.OnSignal(stop)
	for name := range strings.SplitSeq(o.engines, ",") {
		e, why := peer.New(name, filepath.Join(dir, name))
		if e == nil {
			fmt.Printf("skipping %s: %s\n", name, why)
			continue
		}
		s := &subject{Engine: e}
		subjects = append(subjects, s)
		if err := s.prepare(dir); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(subjects) == 0 {
		return fmt.Errorf("no engine to measure")
	}
	if err := growing(o, subjects); err != nil {
		return err
	}
	if o.load == "" {
		return nil
	}
	var clients, seconds int
	if _, err := fmt.Sscan(o.load, &clients, &seconds); err != nil {
		return fmt.Errorf("-load %q: %w", o.load, err)
	}
	for _, s := range subjects {
		if err := s.load(clients, time.Duration(seconds)*time.Second); err != nil {
			return fmt.Errorf("%s: load: %w", s.Name, err)
		}
	}
	return nil
}

// growing measures every call at each size.
func growing(o options, subjects []*subject) error {
	var sizes []int
	for s := range strings.SplitSeq(o.sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("-sizes %q: %w", o.sizes, err)
		}
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	all := map[string][]row{}
	var order []string
	for _, n := range sizes {
		for _, s := range subjects {
			begin := time.Now()
			if err := s.grow(n, o.grow); err != nil {
				return fmt.Errorf("%s: with %d containers: %w", s.Name, n, err)
			}
			fmt.Printf("%s has %d containers (%d running) and %d names of %d images, after %.1f s\n",
				s.Name, s.made, len(s.running), s.tags, s.images, time.Since(begin).Seconds())
		}
		head(n, subjects)
		for _, c := range calls(o.noCLI) {
			if !strings.Contains(c.name, o.only) {
				continue
			}
			r, err := measure(c, subjects, cmp.Or(c.runs, o.runs))
			if err != nil {
				fmt.Printf("%-32s %v\n", c.name, err)
				continue
			}
			r.print()
			if all[c.name] == nil {
				order = append(order, c.name)
			}
			all[c.name] = append(all[c.name], r)
		}
	}
	growth(sizes, order, all, subjects)
	return nil
}
