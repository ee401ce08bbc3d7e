//go:build root

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/client"
)

// A loadCall is one thing that clients do all the time.
type loadCall struct {
	name   string
	weight int
	do     func(ctx context.Context, c *client.Client, rnd *rand.Rand) error
}

func loadCalls() []loadCall {
	return []loadCall{
		{"ping", 4, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			_, err := c.Ping(ctx)
			return err
		}},
		{"list", 6, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			_, err := c.ContainerList(ctx, client.ContainerListOptions{All: true})
			return err
		}},
		{"inspect", 6, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			_, _, err := c.ContainerInspect(ctx, "talker", false)
			return err
		}},
		{"images", 3, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			_, err := c.ImageList(ctx, client.ImageListOptions{})
			return err
		}},
		{"logs", 3, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			body, err := c.ContainerLogs(ctx, "talker", client.ContainerLogsOptions{ShowStdout: true, Tail: "10"})
			return drained(body, err)
		}},
		{"stats", 2, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			body, err := c.ContainerStats(ctx, "talker", client.ContainerStatsOptions{})
			return drained(body, err)
		}},
		{"events", 2, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			messages, failed := c.Events(ctx, client.EventsOptions{Since: "1h"})
			select {
			case <-messages:
				return nil
			case err := <-failed:
				return err
			}
		}},
		{"exec", 1, func(ctx context.Context, c *client.Client, _ *rand.Rand) error {
			id, err := c.ExecCreate(ctx, "talker", container.ExecCreateRequest{Cmd: []string{"echo", "in"}, AttachStdout: true})
			if err != nil {
				return err
			}
			conn, err := c.ExecAttach(ctx, id, container.ExecStartRequest{})
			if err != nil {
				return err
			}
			defer conn.Close()
			out, err := io.ReadAll(conn)
			if err == nil && !strings.HasSuffix(string(out), "in\n") {
				err = fmt.Errorf("an exec printed %q", out)
			}
			return err
		}},
		{"life", 1, func(ctx context.Context, c *client.Client, rnd *rand.Rand) error {
			name := fmt.Sprintf("load-%x", rnd.Uint64())
			r, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Name: name, Config: &container.Config{Image: "busybox", Cmd: []string{"true"}}})
			if err != nil {
				return err
			}
			done, failed := c.ContainerWait(ctx, r.ID, container.WaitConditionNextExit)
			if err := c.ContainerStart(ctx, r.ID, client.ContainerStartOptions{}); err != nil {
				return err
			}
			select {
			case w := <-done:
				if w.StatusCode != 0 {
					return fmt.Errorf("%s ended with %d", name, w.StatusCode)
				}
			case err := <-failed:
				return err
			}
			return c.ContainerRemove(ctx, r.ID, client.ContainerRemoveOptions{})
		}},
	}
}

func drained(body io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return err
}

// TestLoad lets many clients call at once, for SKIFF_LOAD="clients seconds" or
// a moment: no call may fail, and the daemon must come back to what it was. It
// prints the median and the 99th percentile of each call.
func TestLoad(t *testing.T) {
	clients, length := 60, 4*time.Second
	if s := os.Getenv("SKIFF_LOAD"); s != "" {
		var seconds int
		if _, err := fmt.Sscan(s, &clients, &seconds); err != nil {
			t.Fatal(err)
		}
		length = time.Duration(seconds) * time.Second
	}
	d := daemon(t)
	d.Run("docker", "run", "-d", "--name", "talker", "busybox", "sh", "-c", "seq 100; exec sleep 100000")
	calls := loadCalls()
	var deck []int
	for i, c := range calls {
		for range c.weight {
			deck = append(deck, i)
		}
	}
	_ = oneClient(t, d.Sock).run(t.Context(), calls, rand.New(rand.NewPCG(1, 1)), deck, time.Now().Add(500*time.Millisecond)) // warm
	fds, memory := usage(t, d.PID())

	ctx, cancel := context.WithTimeout(t.Context(), length+2*time.Minute)
	defer cancel()
	times := make([][]time.Duration, len(calls))
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for i := range clients {
		wg.Go(func() {
			got := oneClient(t, d.Sock).run(ctx, calls, rand.New(rand.NewPCG(2, uint64(i))), deck, end)
			mu.Lock()
			defer mu.Unlock()
			for call, list := range got {
				times[call] = append(times[call], list...)
			}
		})
	}
	wg.Wait()
	total := 0
	t.Logf("%-8s %8s %10s %10s", "", "calls", "median", "p99")
	for i, list := range times {
		slices.Sort(list)
		total += len(list)
		if len(list) > 0 {
			t.Logf("%-8s %8d %10s %10s", calls[i].name, len(list), list[len(list)/2].Round(time.Microsecond), list[len(list)*99/100].Round(time.Microsecond))
		}
	}
	var fdsAfter, memoryAfter int
	for range 100 { // connections that were closed are noticed soon
		if fdsAfter, memoryAfter = usage(t, d.PID()); fdsAfter <= fds+8 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%d clients, %d calls in %s; descriptors %d, then %d; resident %d MB, then %d MB", clients, total, length, fds, fdsAfter, memory>>10, memoryAfter>>10)
	if fdsAfter > fds+8 {
		t.Errorf("the daemon had %d descriptors and keeps %d", fds, fdsAfter)
	}
	if left := d.Run("docker", "ps", "-aq", "--filter", "name=load-"); left != "" {
		t.Errorf("containers are left: %s", left)
	}
}

type loadClient struct {
	t *testing.T
	c *client.Client
}

func oneClient(t *testing.T, sock string) *loadClient {
	c, err := client.New(client.WithHost("unix://" + sock))
	if err != nil {
		t.Error(err)
	}
	return &loadClient{t, c}
}

// run makes calls until the end, and returns how long each took.
func (l *loadClient) run(ctx context.Context, calls []loadCall, rnd *rand.Rand, deck []int, end time.Time) map[int][]time.Duration {
	defer func() { _ = l.c.Close() }()
	out := make(map[int][]time.Duration)
	for time.Now().Before(end) {
		i := deck[rnd.IntN(len(deck))]
		begin := time.Now()
		if err := calls[i].do(ctx, l.c, rnd); err != nil && !errors.Is(err, context.Canceled) {
			l.t.Errorf("%s: %v (%v)", calls[i].name, err, errdefs.Resolve(err))
			return out
		}
		out[i] = append(out[i], time.Since(begin))
	}
	return out
}

// usage counts a process's descriptors and resident memory, in KB.
func usage(t *testing.T, pid int) (fds, kb int) {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, rest, ok := strings.Cut(string(status), "VmRSS:"); ok {
		kb, _ = strconv.Atoi(strings.Fields(rest)[0])
	}
	return len(list), kb
}
