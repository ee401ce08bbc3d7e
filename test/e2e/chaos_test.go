//go:build root

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
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
	printers := startPrinters(d)
	workers := make([]*chaosWorker, 4)
	for i := range workers {
		w := &chaosWorker{d: d, name: fmt.Sprintf("w%d", i), rnd: rand.New(rand.NewPCG(seed, uint64(i))), state: make(map[string]string)}
		workers[i] = w
		wg.Go(func() {
			for time.Now().Before(end) {
				w.step()
			}
		})
	}
	kills := 0
	rnd := rand.New(rand.NewPCG(seed, 99))
	for time.Now().Before(end) {
		time.Sleep(time.Duration(100+rnd.IntN(1200)) * time.Millisecond)
		switch rnd.IntN(5) {
		case 0, 1:
			d.KillShim()
		case 2: // both, one after the other
			d.Kill()
			d.KillShim()
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

	steps := 0
	for _, w := range workers {
		w.check(t)
		steps += w.n
	}
	t.Logf("%d steps, %d kills", steps, kills)
	checkPrinters(t, d, printers)
	want(t, "still works", d.Run("docker", "run", "--rm", "busybox", "echo", "hi"), "hi")
	if ids := strings.Fields(d.Run("docker", "ps", "-aq")); len(ids) > 0 {
		d.Run("docker", append([]string{"rm", "-fv"}, ids...)...)
	}
	want(t, "volumes", volumesBut(d, "named-"), "")
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

// chaosWorker does one verb after the other and remembers what succeeded.
type chaosWorker struct {
	d    *harness.Daemon
	name string
	rnd  *rand.Rand
	n    int

	containers, images, volumes, removed []string

	state map[string]string // of containers, as acknowledged; "" if a verb failed since
}

// try reports whether a command was acknowledged.
func (w *chaosWorker) try(args ...string) bool { return w.d.Try("", "docker", args...).Code == 0 }

func (w *chaosWorker) step() {
	w.n++
	name := fmt.Sprintf("%s-%d", w.name, w.n)
	some := func() string {
		if len(w.containers) == 0 {
			return "none"
		}
		return w.containers[w.rnd.IntN(len(w.containers))]
	}
	switch w.rnd.IntN(10) {
	case 0:
		if w.try("run", "-d", "--name", name, "-p", "80", "-v", "/data", "busybox", "sleep", "1000") {
			w.add(name, "running")
		}
	case 1:
		w.try("run", "--rm", "-v", "/data", "busybox", "true")
	case 2:
		w.try("exec", some(), "true")
	case 3:
		if c := some(); w.try("rm", "-fv", c) {
			w.removed = append(w.removed, c)
			w.forget(c)
		} else {
			w.forget(c) // it may have gone, or not: nothing was promised
		}
	case 4:
		file := fmt.Sprintf("FROM busybox\nRUN echo %s > /x && sleep 0.05\nCOPY . /c\n", name)
		if w.d.Try(file, "docker", "build", "-q", "-t", "img-"+name, "-").Code == 0 {
			w.images = append(w.images, name)
		}
	case 5:
		if w.try("create", "--name", name, "busybox", "true") {
			w.add(name, "created")
		}
	case 6:
		if w.try("volume", "create", "named-"+name) {
			w.volumes = append(w.volumes, "named-"+name)
		}
	case 7:
		c := some()
		// What was never started is not stopped, and stop succeeds all the same.
		if stopped := w.try("stop", "-t", "0", c); w.state[c] != "created" && w.state[c] != "" {
			w.state[c] = map[bool]string{true: "exited"}[stopped]
		}
		if w.rnd.IntN(2) == 0 {
			started := w.try("start", c)
			w.state[c] = map[bool]string{true: w.afterStart(c)}[started]
		}
	case 8:
		if w.try("run", "-d", "--name", name, "busybox", "sh", "-c", "usleep 300000; exit 3") {
			w.add(name, "exited 3")
		}
	case 9:
		w.try("run", "-dit", "--name", "tty-"+name, "busybox", "sh")
		w.try("exec", "-t", "tty-"+name, "true")
		if w.try("rm", "-f", "tty-"+name) {
			w.removed = append(w.removed, "tty-"+name)
		}
	}
}

func (w *chaosWorker) add(name, state string) {
	w.containers = append(w.containers, name)
	w.state[name] = state
}

// afterStart is the state of a container once it was started: those that end by
// themselves will have.
func (w *chaosWorker) afterStart(c string) string {
	switch w.d.Try("", "docker", "inspect", "-f", "{{index .Config.Cmd 0}}", c).Out() {
	case "sleep":
		return "running"
	case "true":
		return "exited 0"
	case "sh":
		return "exited 3"
	}
	return ""
}

func (w *chaosWorker) forget(c string) {
	for i, x := range w.containers {
		if x == c {
			w.containers = append(w.containers[:i], w.containers[i+1:]...)
			return
		}
	}
}

func (w *chaosWorker) check(t *testing.T) {
	t.Helper()
	for _, c := range w.containers {
		if !w.try("inspect", "--type", "container", c) {
			t.Errorf("container %s was acknowledged and is lost", c)
			continue
		}
		w.checkState(t, c)
	}
	for _, c := range w.removed {
		if w.try("inspect", "--type", "container", c) {
			t.Errorf("container %s was removed and is there", c)
		}
	}
	for _, v := range w.volumes {
		if !w.try("volume", "inspect", v) {
			t.Errorf("volume %s was acknowledged and is lost", v)
		}
	}
	for i, n := range w.images {
		if i%4 != 0 {
			if !w.try("image", "inspect", "img-"+n) {
				t.Errorf("image img-%s was acknowledged and is lost", n)
			}
			continue
		}
		if r := w.d.Try("", "docker", "run", "--rm", "img-"+n, "cat", "/x"); r.Code != 0 || r.Out() != n {
			t.Errorf("image img-%s: %d %q %s", n, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// checkState compares a container's state with what was acknowledged of it.
func (w *chaosWorker) checkState(t *testing.T, c string) {
	t.Helper()
	want := w.state[c]
	if want == "" {
		return
	}
	is := func() string {
		return w.d.Try("", "docker", "inspect", "-f", "{{.State.Status}}{{if eq .State.Status \"exited\"}} {{.State.ExitCode}}{{end}}", c).Out()
	}
	var got string
	for range 100 { // one that was started at last may have to end
		// 255 is how an end that nobody saw is told.
		if got = is(); got == want || strings.HasPrefix(got, want+" ") || strings.HasPrefix(want, "exited") && got == "exited 255" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("container %s is %q, and was acknowledged as %q", c, got, want)
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
