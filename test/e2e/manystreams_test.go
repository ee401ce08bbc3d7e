//go:build root

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/client"
)

// TestManyStreams keeps thousands of streams open at once: what a container
// writes, and an event, reach each of them; none costs a thread, and all are
// gone when their clients are.
func TestManyStreams(t *testing.T) {
	const attached, following, listening = 1000, 1000, 500
	d := daemon(t)
	d.Run("docker", "run", "-d", "-i", "--name", "many", "busybox", "cat")
	writer := oneClient(t, d.Sock)
	defer func() { _ = writer.c.Close() }()
	in, err := writer.c.ContainerAttach(t.Context(), "many", client.ContainerAttachOptions{Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	fds, _ := usage(t, d.PID())
	shims := shimPIDs(t, d.Dir)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	word := fmt.Sprintf("word-%x", rand.Uint64())
	var open, seen sync.WaitGroup
	var kept []*loadClient
	stream := func(what string, begin func(c *client.Client) (io.Reader, error)) {
		c := oneClient(t, d.Sock)
		kept = append(kept, c)
		open.Add(1)
		seen.Go(func() {
			r, err := begin(c.c)
			open.Done()
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			b := bufio.NewReader(r)
			line, err := b.ReadSlice('\n')
			if err != nil || !bytes.Contains(line, []byte(word)) {
				t.Errorf("%s: read %q: %v", what, line, err)
			}
		})
	}
	for range attached {
		stream("attach", func(c *client.Client) (io.Reader, error) {
			return c.ContainerAttach(ctx, "many", client.ContainerAttachOptions{Stdout: true})
		})
	}
	for range following {
		stream("logs -f", func(c *client.Client) (io.Reader, error) {
			return c.ContainerLogs(ctx, "many", client.ContainerLogsOptions{ShowStdout: true, Follow: true, Tail: "all"})
		})
	}
	for range listening {
		stream("events", func(c *client.Client) (io.Reader, error) {
			messages, failed := c.Events(ctx, client.EventsOptions{Filters: client.Filters{}.Add("type", "volume")})
			r, w := io.Pipe()
			go func() {
				select {
				case m := <-messages:
					_, _ = fmt.Fprintln(w, m.Actor.ID)
				case err := <-failed:
					_ = w.CloseWithError(err)
				}
			}()
			return r, nil
		})
	}
	open.Wait()
	// Clients of events are not told when they are heard.
	deadline := time.Now().Add(30 * time.Second)
	for n := 0; n < fds+attached+following+listening; n, _ = usage(t, d.PID()) {
		if time.Now().After(deadline) {
			t.Fatalf("the daemon has %d descriptors of %d streams", n, attached+following+listening)
		}
		time.Sleep(20 * time.Millisecond)
	}
	threads := map[string]int{"skiffd": threadsOf(t, d.PID())}
	for _, pid := range shims {
		threads["shim "+strconv.Itoa(pid)] = threadsOf(t, pid)
	}
	for who, n := range threads {
		if n > 100 {
			t.Errorf("%s has %d threads for %d streams", who, n, attached+following+listening)
		}
	}
	all := make(chan struct{})
	go func() { seen.Wait(); close(all) }()
	for n, done := 0, false; !done; n++ { // again, for who was not yet listening
		if _, err := fmt.Fprintln(in, word); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.c.VolumeCreate(ctx, volume.CreateRequest{Name: word + strconv.Itoa(n)}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-all:
			done = true
		case <-time.After(time.Second):
		}
	}
	_, memory := usage(t, d.PID())
	t.Logf("%d streams: threads %v, resident %d MB", attached+following+listening, threads, memory>>10)

	cancel()
	for _, c := range kept {
		_ = c.c.Close()
	}
	var after int
	for range 200 {
		if after, _ = usage(t, d.PID()); after <= fds+8 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if after > fds+8 {
		t.Errorf("the daemon had %d descriptors and keeps %d", fds, after)
	}
}

// shimPIDs are the shim and its keeper.
func shimPIDs(t *testing.T, dir string) (out []int) {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err == nil && bytes.HasPrefix(b, []byte("skiff-shim")) && bytes.Contains(b, []byte(dir)) {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			out = append(out, pid)
		}
	}
	return out
}

func threadsOf(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
