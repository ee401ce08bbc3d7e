package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/skiff-containers/skiff/bench/peer"
)

// allFigures lists what is measured, in the order it is printed.
func allFigures(dir string) []figure {
	return []figure{
		{"run --rm true, bridge", "ms", func(e *peer.Engine) (float64, error) { return e.Timed("run", "--rm", "bench", "true") }, 0},
		{"run --rm true, no network", "ms", func(e *peer.Engine) (float64, error) {
			return e.Timed("run", "--rm", "--network", "none", "bench", "true")
		}, 0},
		{"run -d, bridge, then rm -f", "ms", func(e *peer.Engine) (float64, error) {
			start := time.Now()
			id, err := e.Output("run", "-d", "bench", "sleep", "1000")
			if err == nil {
				_, err = e.Output("rm", "-f", strings.TrimSpace(id))
			}
			return float64(time.Since(start).Microseconds()) / 1000, err
		}, 0},
		{"exec true", "ms", execTrue, 0},
		{"20 starts at once", "ms", parallelStarts(20), 5},
		{"ps", "ms", func(e *peer.Engine) (float64, error) { return e.Timed("ps") }, 0},
		{"build, 10 RUN, cold", "ms", build(dir, true), 5},
		{"build, 10 RUN, cached", "ms", build(dir, false), 5},
		{"engine RSS, idle", "MB", idle(false), 1},
		{"engine PSS, idle", "MB", idle(true), 1},
		{"engine RSS, 20 containers", "MB", loaded(20, false), 1},
		{"engine PSS, 20 containers", "MB", loaded(20, true), 1},
	}
}

func execTrue(e *peer.Engine) (float64, error) {
	id, err := e.Output("run", "-d", "bench", "sleep", "1000")
	if err != nil {
		return 0, err
	}
	id = strings.TrimSpace(id)
	time.Sleep(50 * time.Millisecond)
	ms, err := e.Timed("exec", id, "true")
	if _, rmErr := e.Output("rm", "-f", id); err == nil {
		err = rmErr
	}
	return ms, err
}

func parallelStarts(n int) func(*peer.Engine) (float64, error) {
	return func(e *peer.Engine) (float64, error) {
		ids := make([]string, n)
		failed := make([]error, n)
		var wg sync.WaitGroup
		start := time.Now()
		for i := range n {
			wg.Go(func() { ids[i], failed[i] = e.Output("run", "-d", "bench", "sleep", "1000") })
		}
		wg.Wait()
		ms := float64(time.Since(start).Microseconds()) / 1000
		args := []string{"rm", "-f"}
		for i := range n {
			if failed[i] != nil {
				return 0, failed[i]
			}
			args = append(args, strings.TrimSpace(ids[i]))
		}
		_, err := e.Output(args...)
		return ms, err
	}
}

func build(dir string, cold bool) func(*peer.Engine) (float64, error) {
	return func(e *peer.Engine) (float64, error) {
		ctx := filepath.Join(dir, "ctx")
		if err := os.MkdirAll(ctx, 0o755); err != nil {
			return 0, err
		}
		var file strings.Builder
		file.WriteString("FROM bench\n")
		for i := range 10 {
			fmt.Fprintf(&file, "RUN echo %d > /f%d\n", i, i)
		}
		if err := os.WriteFile(filepath.Join(ctx, "Dockerfile"), []byte(file.String()), 0o644); err != nil {
			return 0, err
		}
		args := []string{"build", "-q", "-t", "built", ctx}
		if cold {
			args = []string{"build", "-q", "--no-cache", "-t", "built", ctx}
		} else if _, err := e.Output(args...); err != nil {
			return 0, err
		}
		return e.Timed(args...)
	}
}

func pick(e *peer.Engine, proportional bool) (float64, error) {
	rss, pss, err := e.Memory()
	if proportional {
		return pss, err
	}
	return rss, err
}

// settleTime is how long an engine that has nothing to do is given to come to rest.
const settleTime = 12 * time.Second

func idle(proportional bool) func(*peer.Engine) (float64, error) {
	return func(e *peer.Engine) (float64, error) {
		time.Sleep(settleTime)
		return pick(e, proportional)
	}
}

func loaded(n int, proportional bool) func(*peer.Engine) (float64, error) {
	return func(e *peer.Engine) (float64, error) {
		args := []string{"rm", "-f"}
		for range n {
			id, err := e.Output("run", "-d", "bench", "sleep", "1000")
			if err != nil {
				return 0, err
			}
			args = append(args, strings.TrimSpace(id))
		}
		time.Sleep(time.Second)
		v, err := pick(e, proportional)
		if _, rmErr := e.Output(args...); err == nil {
			err = rmErr
		}
		return v, err
	}
}
