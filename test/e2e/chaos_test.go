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
	t.Logf("seed %d", seed)
	end := time.Now().Add(length)
	var wg sync.WaitGroup
	workers := make([]*chaosWorker, 4)
	for i := range workers {
		w := &chaosWorker{d: d, name: fmt.Sprintf("w%d", i), rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
		workers[i] = w
		wg.Go(func() {
			for time.Now().Before(end) {
				w.step()
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	for time.Now().Before(end) {
		time.Sleep(time.Duration(100+rnd.IntN(1200)) * time.Millisecond)
		if rnd.IntN(3) == 0 {
			d.KillShim()
			continue
		}
		d.Kill()
		d.Launch()
	}
	wg.Wait()
	d.Kill()
	d.Launch()

	for _, w := range workers {
		w.check(t)
	}
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
	switch w.rnd.IntN(8) {
	case 0:
		if w.try("run", "-d", "--name", name, "-p", "80", "-v", "/data", "busybox", "sleep", "1000") {
			w.containers = append(w.containers, name)
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
			w.containers = append(w.containers, name)
		}
	case 6:
		if w.try("volume", "create", "named-"+name) {
			w.volumes = append(w.volumes, "named-"+name)
		}
	case 7:
		c := some()
		w.try("stop", "-t", "0", c)
		w.try("start", c)
	}
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
		}
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
