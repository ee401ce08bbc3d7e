package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/shim"
)

// A shimBench starts containers through a shim of its own.
type shimBench struct {
	*bench
	client *shim.Client
	pid    int

	unparked bool // have children cloned for the containers

	mu    sync.Mutex
	exits map[string]chan time.Time // by container
}

// insideShim prints how long a start takes from the request to the answer, and
// to the news of the exit.
func (b *bench) insideShim(ctx context.Context) (err error) {
	s := &shimBench{bench: b, exits: make(map[string]chan time.Time)}
	s.client, err = shim.Ensure(ctx, shim.Options{RunDir: filepath.Join(b.dir, "run"), Path: filepath.Join(b.bin, "skiff-shim")})
	if err != nil {
		return err
	}
	if s.pid, err = s.client.Hello(ctx); err != nil {
		return err
	}
	defer s.end()
	news, err := s.client.Events(ctx)
	if err != nil {
		return err
	}
	go s.listen(news)
	if _, _, err := s.start(ctx, 0); err != nil { // the keeper is begun beside the first
		return err
	}
	fmt.Printf("\n%-28s%22s%22s\n", "inside the shim, median (min)", "started", "exit seen")
	for _, c := range []struct {
		name     string
		at, runs int
		gap      time.Duration
	}{
		{"1, back to back", 1, b.runs, 0},
		{"2 at once", 2, b.runs / 2, 0},
		{"8 at once", 8, b.runs / 4, 0},
		{"1, isolated", 1, b.isolated, b.gap},
	} {
		var started, ended samples
		for range c.runs {
			time.Sleep(c.gap)
			st, en, err := s.batch(ctx, c.at)
			if err != nil {
				return err
			}
			started, ended = append(started, st...), append(ended, en...)
		}
		fmt.Printf("%-28s%10.2f (%6.2f) ms%10.2f (%6.2f) ms\n", c.name, started.median(), started.min(), ended.median(), ended.min())
	}
	return s.stages(ctx)
}

func (s *shimBench) listen(news <-chan runtime.Exit) {
	for e := range news {
		now := time.Now()
		s.mu.Lock()
		if c := s.exits[e.ID]; c != nil {
			c <- now
		}
		s.mu.Unlock()
	}
}

// batch starts n containers at once and returns what each of them took.
func (s *shimBench) batch(ctx context.Context, n int) (started, ended samples, err error) {
	started, ended = make(samples, n), make(samples, n)
	failed := make(chan error, n)
	for i := range n {
		go func() {
			var err error
			started[i], ended[i], err = s.start(ctx, i)
			failed <- err
		}()
	}
	for range n {
		if e := <-failed; e != nil {
			err = e
		}
	}
	return started, ended, err
}

func (s *shimBench) start(ctx context.Context, slot int) (started, ended time.Duration, err error) {
	id := "shim" + strconv.Itoa(slot)
	news := make(chan time.Time, 1)
	s.mu.Lock()
	s.exits[id] = news
	s.mu.Unlock()
	l := &runtime.Launch{ID: id, Spec: s.bundle.in(s.parent + "/" + id), Log: runtime.Log{Driver: "none"}}
	if s.unparked {
		l.Spec.Hooks = &specs.Hooks{} // which a parked child cannot run
	}
	at := time.Now()
	if _, err := s.client.Start(ctx, l); err != nil {
		return 0, 0, fmt.Errorf("start %s: %w", id, err)
	}
	started = time.Since(at)
	select {
	case t := <-news:
		ended = t.Sub(at)
	case <-time.After(10 * time.Second):
		return 0, 0, errs.Newf(errs.Internal, "no news of the end of %s", id)
	}
	return started, ended, s.client.Delete(ctx, id)
}

// end ends the shim; its keeper goes with the last of its connections.
func (s *shimBench) end() {
	_ = s.client.Close()
	_ = unix.Kill(s.pid, unix.SIGKILL)
	for range 500 {
		if unix.Kill(s.pid, 0) != nil {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}
