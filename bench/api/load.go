package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// loadCall is one thing that clients do all the time.
type loadCall struct {
	name   string
	weight int
	do     func(ctx context.Context, w *wire, rnd *rand.Rand) error
}

func loadGet(name string, weight int, path string) loadCall {
	return loadCall{name, weight, func(ctx context.Context, w *wire, _ *rand.Rand) error {
		_, err := w.call(ctx, "GET", path, "")
		return err
	}}
}

func loadCalls() []loadCall {
	return []loadCall{
		loadGet("ping", 4, "/_ping"),
		loadGet("list", 6, "/containers/json?all=1&limit=20"),
		loadGet("inspect", 6, "/containers/c0/json"),
		loadGet("images", 3, "/images/json"),
		loadGet("logs", 3, "/containers/c0/logs?stdout=1&tail=10"),
		loadGet("stats", 2, "/containers/c0/stats?stream=0&one-shot=1"),
		{"events", 2, firstEvent},
		{"exec", 1, loadExec},
		{"life", 1, loadLife},
	}
}

func firstEvent(ctx context.Context, w *wire, _ *rand.Rand) error {
	resp, err := w.open(ctx, "GET", "/events?since=1", nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = bufio.NewReader(resp.Body).ReadBytes('\n')
	return err
}

func loadExec(ctx context.Context, w *wire, _ *rand.Rand) error {
	var made struct{ ID string }
	if err := w.ask(ctx, "POST", "/containers/c0/exec", `{"Cmd":["echo","in"],"AttachStdout":true}`, &made); err != nil {
		return err
	}
	out, err := w.hijack(ctx, "/exec/"+made.ID+"/start", `{}`)
	if err == nil && !strings.HasSuffix(out, "in\n") {
		err = fmt.Errorf("an exec printed %q", out)
	}
	return err
}

// loadLife is a container's: made, started, waited for, removed.
func loadLife(ctx context.Context, w *wire, rnd *rand.Rand) (err error) {
	path := fmt.Sprintf("/containers/load-%x", rnd.Uint64())
	if _, err := w.call(ctx, "POST", "/containers/create?name="+strings.TrimPrefix(path, "/containers/"), `{"Image":"bench","Cmd":["true"]}`); err != nil {
		return err
	}
	defer func() {
		if _, rmErr := w.call(context.WithoutCancel(ctx), "DELETE", path+"?force=1", ""); err == nil {
			err = rmErr
		}
	}()
	if _, err := w.call(ctx, "POST", path+"/start", ""); err != nil {
		return err
	}
	var done struct{ StatusCode int }
	if err := w.ask(ctx, "POST", path+"/wait", "", &done); err != nil {
		return err
	}
	if done.StatusCode != 0 {
		return fmt.Errorf("a container ended with %d", done.StatusCode)
	}
	return nil
}

// tally collects what the clients saw of one call.
type tally struct {
	mu     sync.Mutex // guards all below
	ms     []float64
	failed int
	first  error
}

func (t *tally) add(took time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed++
		if t.first == nil {
			t.first = err
		}
		return
	}
	t.ms = append(t.ms, float64(took.Nanoseconds())/1e6)
}

// patience is how long a call may still take after the load's end.
const patience = 30 * time.Second

// load lets clients call at once, each over a connection of its own, and
// compares what the engine holds before and after.
func (s *subject) load(clients int, length time.Duration) error {
	list := loadCalls()
	var deck []int
	for i, c := range list {
		for range c.weight {
			deck = append(deck, i)
		}
		if err := c.do(context.Background(), s.wire, rand.New(rand.NewPCG(1, uint64(i)))); err != nil { // warm
			return err
		}
	}
	before := s.usage()
	tallies := make([]tally, len(list))
	begin := time.Now()
	end := begin.Add(length)
	ctx, cancel := context.WithDeadline(context.Background(), end.Add(patience))
	defer cancel()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			w := newWire(s.Sock)
			defer w.close()
			rnd := rand.New(rand.NewPCG(2, uint64(i)))
			for time.Now().Before(end) {
				k := deck[rnd.IntN(len(deck))]
				at := time.Now()
				err := list[k].do(ctx, w, rnd)
				tallies[k].add(time.Since(at), err)
			}
		})
	}
	time.Sleep(length * 3 / 4)
	during := s.usage()
	wg.Wait()
	took := time.Since(begin)
	s.wire.close()
	after := s.usage()
	for wait := time.Now().Add(15 * time.Second); after.fds > before.fds+8 && time.Now().Before(wait); after = s.usage() {
		time.Sleep(200 * time.Millisecond) // closed connections are noticed soon
	}
	s.printLoad(list, tallies, clients, took)
	fmt.Printf("%-12s%8s%8s%8s\n", "", "before", "during", "after")
	for _, l := range []struct {
		what    string
		b, d, a int
	}{
		{"RSS, MB", before.rss >> 10, during.rss >> 10, after.rss >> 10},
		{"threads", before.threads, during.threads, after.threads},
		{"descriptors", before.fds, during.fds, after.fds},
		{"goroutines", before.goroutines, during.goroutines, after.goroutines},
	} {
		fmt.Printf("%-12s%8d%8d%8d\n", l.what, l.b, l.d, l.a)
	}
	return nil
}

func (s *subject) printLoad(list []loadCall, tallies []tally, clients int, took time.Duration) {
	total := 0
	for i := range tallies {
		total += len(tallies[i].ms)
	}
	fmt.Printf("\n%s: %d clients, %d calls in %.0f s, %.0f a second\n", s.Name, clients, total, took.Seconds(), float64(total)/took.Seconds())
	fmt.Printf("%-12s%8s%10s%10s%8s\n", "ms", "calls", "median", "p99", "failed")
	for i := range tallies {
		t := &tallies[i]
		slices.Sort(t.ms)
		fmt.Printf("%-12s%8d%10.1f%10.1f%8d", list[i].name, len(t.ms), at(t.ms, 50), at(t.ms, 99), t.failed)
		if t.first != nil {
			fmt.Printf("  first: %v", t.first)
		}
		fmt.Println()
	}
}
