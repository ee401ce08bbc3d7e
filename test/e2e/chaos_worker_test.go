//go:build root

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

// chaosBox is a container that was acknowledged, and what is known of it.
type chaosBox struct {
	state   string            // as acknowledged; "" if a verb failed since
	started string            // the state that it has some time after a start
	gone    bool              // made with --rm: it goes when it ends
	doomed  bool              // a removal of it was cut off: nothing is promised
	always  bool              // comes back with the daemon even if it was stopped
	healthy bool              // has a check that succeeds
	web     bool              // serves its name on a published port
	network string            // of the user's, if it is on one
	files   map[string]string // written and acknowledged
}

// chaosWorker does one verb after the other and remembers what succeeded.
type chaosWorker struct {
	d    *harness.Daemon
	name string
	rnd  *rand.Rand
	n    int
	cuts *atomic.Int64 // odd while the shim is being killed

	boxes map[string]*chaosBox

	images, volumes, networks []string
	removed, removedNetworks  []string

	lies []string // answers that say success and are wrong

	states, files int // that were checked
}

func newChaosWorker(d *harness.Daemon, name string, rnd *rand.Rand, cuts *atomic.Int64) *chaosWorker {
	return &chaosWorker{d: d, name: name, rnd: rnd, cuts: cuts, boxes: make(map[string]*chaosBox)}
}

// do runs a command, again if there was no daemon to hear of it: else most steps
// would be made while there is none, and do nothing.
func (w *chaosWorker) do(stdin string, args ...string) (r harness.Result) {
	for range 200 {
		r = w.d.Try(stdin, "docker", args...)
		if r.Code == 0 || !strings.Contains(r.Stderr, "Cannot connect to the Docker daemon") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return r
}

// try reports whether a command was acknowledged.
func (w *chaosWorker) try(args ...string) bool { return w.do("", args...).Code == 0 }

// some picks a container; the order of names makes a seed mean the same verbs.
func (w *chaosWorker) some() (string, *chaosBox) {
	if len(w.boxes) == 0 {
		return "none", &chaosBox{files: make(map[string]string)}
	}
	names := slices.Sorted(maps.Keys(w.boxes))
	name := names[w.rnd.IntN(len(names))]
	return name, w.boxes[name]
}

// made remembers a container if it was acknowledged.
func (w *chaosWorker) made(name string, b chaosBox, args ...string) {
	if w.try(args...) {
		b.files = make(map[string]string)
		w.boxes[name] = &b
	}
}

// afterStop notes a stop, a kill or whatever else ends a container.
func (w *chaosWorker) afterStop(name string, b *chaosBox, acknowledged bool) {
	switch {
	case b.gone:
		if delete(w.boxes, name); acknowledged { // else it may have gone, or not
			w.removed = append(w.removed, name)
		}
	case b.state == "created" || b.state == "":
		// What was never started is not stopped, and stop succeeds all the same.
	case !acknowledged:
		b.state = ""
	case b.always: // as docker has it: the next daemon, and there is one, starts it
		b.state = b.started
	default:
		b.state = "exited"
	}
}

// check compares what there is with what was acknowledged, and returns the number
// of containers of which something was.
func (w *chaosWorker) check(t *testing.T) (known int) {
	t.Helper()
	for _, l := range w.lies {
		t.Error(l)
	}
	for name, b := range w.boxes {
		if b.doomed {
			continue
		}
		known++
		if !w.try("inspect", "--type", "container", name) {
			t.Errorf("container %s was acknowledged (%+v) and is lost", name, *b)
			continue
		}
		w.checkState(t, name, b)
		w.checkFiles(t, name, b)
	}
	for _, c := range w.removed {
		// One with --rm goes after its end was answered.
		harness.Eventually(t, 5*time.Second, func() string {
			if w.try("inspect", "--type", "container", c) {
				return fmt.Sprintf("container %s was removed and is there", c)
			}
			return ""
		})
	}
	for _, v := range w.volumes {
		if !w.try("volume", "inspect", v) {
			t.Errorf("volume %s was acknowledged and is lost", v)
		}
	}
	for _, n := range w.networks {
		if !w.try("network", "inspect", n) {
			t.Errorf("network %s was acknowledged and is lost", n)
		}
	}
	for _, n := range w.removedNetworks {
		if w.try("network", "inspect", n) {
			t.Errorf("network %s was removed and is there", n)
		}
	}
	w.checkImages(t)
	return known
}

func (w *chaosWorker) checkImages(t *testing.T) {
	t.Helper()
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
func (w *chaosWorker) checkState(t *testing.T, c string, b *chaosBox) {
	t.Helper()
	if b.state == "" {
		return
	}
	w.states++
	var got string
	right := false
	for range 500 { // one that was started at last may have to end, or its wait to end
		got = w.d.Try("", "docker", "inspect", "-f",
			"{{.State.Status}}{{if eq .State.Status \"exited\"}} {{.State.ExitCode}}{{end}}", c).Out()
		// 255 is how an end that nobody saw is told.
		right = got == b.state || strings.HasPrefix(got, b.state+" ") || strings.HasPrefix(b.state, "exited") && got == "exited 255" ||
			b.state == "restarts" && (got == "running" || got == "restarting")
		if right {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !right {
		t.Errorf("container %s is %q, and was acknowledged as %q", c, got, b.state)
		return
	}
	if b.state != "running" {
		return
	}
	if b.healthy {
		harness.Eventually(t, 20*time.Second, func() string {
			if h := w.d.Try("", "docker", "inspect", "-f", "{{.State.Health.Status}}", c).Out(); h != "healthy" {
				return fmt.Sprintf("container %s is %q, not healthy", c, h)
			}
			return ""
		})
	}
	if b.web {
		w.checkPage(t, c, b)
	}
}

// checkPage fetches a container's name from outside, and from beside it.
func (w *chaosWorker) checkPage(t *testing.T, c string, b *chaosBox) {
	t.Helper()
	r := w.d.Try("", "docker", "port", c, "80/tcp")
	addr, _, _ := strings.Cut(r.Out(), "\n")
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + strings.Replace(addr, "0.0.0.0", "127.0.0.1", 1) + "/")
	if err != nil {
		t.Errorf("container %s's port: %v", c, err)
	} else {
		page, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || strings.TrimSpace(string(page)) != c {
			t.Errorf("container %s's port answers %q, %v", c, page, err)
		}
	}
	if b.network == "" {
		return
	}
	if r := w.d.Try("", "docker", "run", "--rm", "--network", b.network, "busybox", "timeout", "5", "wget", "-qO-", "http://"+c+"/"); r.Out() != c {
		t.Errorf("container %s by its name: %q %s", c, r.Stdout, r.Stderr)
	}
}

// checkFiles looks for what was written into a container.
func (w *chaosWorker) checkFiles(t *testing.T, c string, b *chaosBox) {
	t.Helper()
	for path, text := range b.files {
		w.files++
		r := w.d.Try("", "docker", "cp", c+":"+path, "-")
		tr := tar.NewReader(strings.NewReader(r.Stdout))
		_, err := tr.Next()
		got := ""
		if err == nil {
			var data []byte
			data, err = io.ReadAll(tr)
			got = strings.TrimSpace(string(data))
		}
		if r.Code != 0 || err != nil || got != text {
			t.Errorf("container %s's %s is %q, %v: %d %s", c, path, got, err, r.Code, r.Stderr)
		}
	}
}

// archiveOf is an archive of one file.
func archiveOf(name, text string) string {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	// Neither fails: the writer is memory, and the size is right.
	_ = tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))})
	_, _ = io.WriteString(tw, text)
	_ = tw.Close()
	return b.String()
}
