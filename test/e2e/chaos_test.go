//go:build root

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestChaos kills daemon and shim at random moments of random verbs. What was
// acknowledged must be there afterwards, what was removed must not, and nothing
// may be left behind, which the harness looks for. SKIFF_CHAOS makes it longer.
func TestChaos(t *testing.T) {
	d := daemon(t)
	length := 12 * time.Second
	if s, err := strconv.Atoi(os.Getenv("SKIFF_CHAOS")); err == nil {
		length = time.Duration(s) * time.Second
	}
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SKIFF_CHAOS_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("seed %d", seed)
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	rules := ruleset(t, d)
	var cuts atomic.Int64
	printers := startPrinters(d)
	workers := make([]*chaosWorker, 4)
	for i := range workers {
		w := newChaosWorker(d, fmt.Sprintf("w%d", i), rand.New(rand.NewPCG(seed, uint64(i))), &cuts)
		workers[i] = w
		wg.Go(func() {
			for time.Now().Before(end) {
				w.step()
			}
		})
	}
	kills := 0
	killShim := func() {
		cuts.Add(1)
		d.KillShim()
		cuts.Add(1)
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	for time.Now().Before(end) {
		gap := 1200
		if rnd.IntN(4) == 0 { // time for what takes many requests
			gap = 5000
		}
		time.Sleep(time.Duration(100+rnd.IntN(gap)) * time.Millisecond)
		switch rnd.IntN(5) {
		case 0, 1:
			killShim()
		case 2: // both, one after the other
			d.Kill()
			killShim()
			d.Launch()
		default:
			d.Kill()
			d.Launch()
		}
		kills++
	}
	wg.Wait()
	d.Kill()
	d.Launch()

	steps, known, states, files := 0, 0, 0, 0
	for _, w := range workers {
		known += w.check(t)
		steps, states, files = steps+w.n, states+w.states, files+w.files
	}
	t.Logf("%d steps, %d kills; %d containers, %d states and %d files compared", steps, kills, known, states, files)
	// A few steps may all have been cut off; else there is something to compare.
	if least := min(5*len(workers), steps/20); known < least {
		t.Errorf("%d containers are left of %d steps, %d were to be: too little was compared", known, steps, least)
	}
	checkPrinters(t, d, printers)
	want(t, "still works", d.Run("docker", "run", "--rm", "busybox", "echo", "hi"), "hi")
	if ids := strings.Fields(d.Run("docker", "ps", "-aq")); len(ids) > 0 {
		d.Run("docker", append([]string{"rm", "-fv"}, ids...)...)
	}
	want(t, "volumes", volumesBut(d, "named-"), "")
	for _, n := range strings.Fields(d.Run("docker", "network", "ls", "-q", "--filter", "type=custom")) {
		d.Run("docker", "network", "rm", n)
	}
	harness.Eventually(t, 5*time.Second, func() string {
		if now := ruleset(t, d); now != rules {
			return "the packet filter was\n" + rules + "\nand is now\n" + now
		}
		return ""
	})
	groups, parked := d.Parked()
	t.Logf("parked: %d groups, %d processes", len(groups), parked)
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		if strings.HasPrefix(i.Name, "br-") {
			t.Errorf("left behind: bridge %s", i.Name)
		}
	}
}

// ruleset is what the packet filter holds while nothing runs, without what
// merely counts; it is empty where there is no nft to ask.
func ruleset(t *testing.T, d *harness.Daemon) string {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Log("no nft: the packet filter is not compared")
		return ""
	}
	return d.Run("nft", "-s", "list", "ruleset")
}

// volumesBut lists the volumes that do not begin with prefix.
func volumesBut(d *harness.Daemon, prefix string) string {
	var out []string
	for _, v := range strings.Fields(d.Run("docker", "volume", "ls", "-q")) {
		if !strings.HasPrefix(v, prefix) {
			out = append(out, v)
		}
	}
	return strings.Join(out, " ")
}

// startPrinters starts containers that number their lines, in each format of
// log and at two speeds.
func startPrinters(d *harness.Daemon) []string {
	var names []string
	for _, driver := range []string{"json-file", "local"} {
		for _, gap := range []string{"[ $((i%500)) = 0 ] && usleep 10000; ", "usleep 3000; "} {
			name := "printer-" + strconv.Itoa(len(names))
			d.Run("docker", "run", "-d", "--name", name, "--log-driver", driver, "--log-opt", "max-size=1g", "busybox", "sh", "-c",
				"i=0; while :; do i=$((i+1)); echo line $i; "+gap+"done")
			names = append(names, name)
		}
	}
	return names
}

// checkPrinters looks for each line that was printed, once.
func checkPrinters(t *testing.T, d *harness.Daemon, names []string) {
	t.Helper()
	for _, name := range names {
		d.Run("docker", "stop", "-t", "0", name)
		faults, n := 0, 0
		for line := range strings.Lines(d.Run("docker", "logs", name)) {
			n++
			if k, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), "line ")); err != nil || k != n {
				if faults++; faults <= 5 {
					t.Errorf("%s: line %d is %q", name, n, strings.TrimSpace(line))
				}
				if err == nil {
					n = k
				}
			}
		}
		t.Logf("%s: %d lines, %d faults", name, n, faults)
		d.Run("docker", "rm", name)
	}
}
