//go:build root

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/client"
	"github.com/skiff-containers/skiff/test/harness"
)

// A fleet is many containers of one daemon: most without a network, a fifth on
// two bridges, half of those with a published port.
type fleet struct {
	t    *testing.T
	d    *harness.Daemon
	many int
}

const fleetNetwork = "fleet"

// TestScale starts many containers (SKIFF_SCALE, or 50), finds all alive, stops
// and removes them, and counts at each step what they take: at the end nothing
// may be left. It prints the counts as a table.
func TestScale(t *testing.T) {
	f := &fleet{t: t, d: daemon(t), many: 50}
	asked := os.Getenv("SKIFF_SCALE")
	if n, err := strconv.Atoi(asked); err == nil {
		f.many = n
	}
	oneOfEach, all := []int{0, 1, 2, 10, 11}, numbers(0, f.many)
	f.network("create")
	f.each(oneOfEach, f.start) // what is kept ready is there from now on
	f.each(oneOfEach, f.stop)
	f.each(oneOfEach, f.remove)
	f.network("rm")
	before := f.settled(nil)
	clean := func(what string) int { return before[what] + slack(what) }

	f.network("create")
	connected := f.settled(nil)
	f.timed("started", func() { f.each(all[:f.many/2], f.start) })
	half := f.settled(nil)
	f.timed("started", func() { f.each(all[f.many/2:], f.start) })
	f.alive()
	full := f.settled(nil)
	if n := full[processes] - before[processes]; n != f.many {
		t.Errorf("%d containers have %d processes", f.many, n)
	}
	f.timed("stopped", func() { f.each(all, f.stop) })
	stopped := f.settled(func(what string) int {
		if what == files { // of what is not removed
			return full[what]
		}
		return connected[what] + slack(what)
	})
	f.timed("removed", func() { f.each(all, f.remove) })
	f.network("rm")
	columns := []column{
		{"before", before},
		{fmt.Sprint("with ", f.many/2), half},
		{fmt.Sprint("with ", f.many), full},
		{"stopped", stopped},
		{"removed", f.settled(clean)},
	}
	if asked != "" { // what is parked is so for a minute
		columns = append(columns, column{"at rest", f.settled(func(what string) int {
			if what == parked || what == parkedGroups {
				return 0
			}
			return clean(what)
		})})
	}
	printTable(t, columns)
}

func numbers(from, to int) []int {
	var out []int
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

// each does something with some of the containers, four at a time.
func (f *fleet) each(which []int, do func(ctx context.Context, c *client.Client, i int) error) {
	f.t.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c := oneClient(f.t, f.d.Sock).c
			defer func() { _ = c.Close() }()
			for i := range next {
				if err := do(f.t.Context(), c, i); err != nil {
					f.t.Errorf("container %d: %v", i, err)
				}
			}
		})
	}
	for _, i := range which {
		next <- i
	}
	close(next)
	wg.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

func published(i int) bool { return i%20 == 10 || i%20 == 11 }

// start starts one. What it is depends on its number alone, so that each half of
// the fleet has all kinds.
func (f *fleet) start(ctx context.Context, c *client.Client, i int) error {
	cfg := &container.Config{Image: "busybox", Cmd: []string{"sleep", "100000"}, StopSignal: "KILL"}
	host := &container.HostConfig{NetworkMode: "none"}
	switch i % 10 {
	case 0:
		host.NetworkMode = "bridge"
	case 1:
		host.NetworkMode = fleetNetwork
	}
	if published(i) {
		web := network.MustParsePort("80/tcp")
		cfg.Cmd = []string{"httpd", "-f", "-p", "80"}
		cfg.ExposedPorts = network.PortSet{web: {}}
		host.PortBindings = network.PortMap{web: {{}}}
	}
	r, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{Name: fmt.Sprint("fleet-", i), Config: cfg, HostConfig: host})
	if err != nil {
		return err
	}
	return c.ContainerStart(ctx, r.ID, client.ContainerStartOptions{})
}

func (f *fleet) stop(ctx context.Context, c *client.Client, i int) error {
	return c.ContainerStop(ctx, fmt.Sprint("fleet-", i), client.ContainerStopOptions{})
}

func (f *fleet) remove(ctx context.Context, c *client.Client, i int) error {
	return c.ContainerRemove(ctx, fmt.Sprint("fleet-", i), client.ContainerRemoveOptions{})
}

func (f *fleet) network(verb string) {
	f.t.Helper()
	f.d.Run("docker", "network", verb, fleetNetwork)
}

func (f *fleet) timed(what string, do func()) {
	f.t.Helper()
	begin := time.Now()
	do()
	f.t.Logf("%s in %s", what, time.Since(begin).Round(time.Millisecond))
}

// alive looks whether each runs, and whether each published port is answered.
func (f *fleet) alive() {
	f.t.Helper()
	c := oneClient(f.t, f.d.Sock).c
	defer func() { _ = c.Close() }()
	list, err := c.ContainerList(f.t.Context(), client.ContainerListOptions{All: true})
	if err != nil || len(list) != f.many {
		f.t.Fatalf("%d containers are listed, %v", len(list), err)
	}
	web := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	networks, answers := map[string]int{}, 0
	for _, s := range list {
		if s.State != container.StateRunning {
			f.t.Errorf("%s is %s", s.Names[0], s.State)
		}
		networks[s.HostConfig.NetworkMode]++
		for _, p := range s.Ports {
			if p.PublicPort == 0 || !p.IP.Is4() {
				continue
			}
			resp, err := web.Get(fmt.Sprintf("http://127.0.0.1:%d/none", p.PublicPort))
			if err != nil {
				f.t.Errorf("%s: %v", s.Names[0], err)
				continue
			}
			_ = resp.Body.Close()
			answers++
		}
	}
	f.t.Logf("alive: %v, %d ports answered", networks, answers)
	ports := 0
	for i := range f.many {
		if published(i) {
			ports++
		}
	}
	if answers != ports {
		f.t.Errorf("%d ports answered of %d", answers, ports)
	}
}
