//go:build root

package e2e

import (
	"fmt"
	"slices"
	"strings"
)

// chaosBoxes is how many containers a worker has at most, more or less.
const chaosBoxes = 12

// step does one random verb. More of them make containers than remove any, up to
// a limit, so that there are always some, and some that are old.
func (w *chaosWorker) step() {
	w.n++
	name := fmt.Sprintf("%s-%d", w.name, w.n)
	if len(w.boxes) >= chaosBoxes {
		w.remove(name)
		return
	}
	verbs := []func(string){
		w.runLong, w.runShort, w.execs, w.remove, w.build, w.create, w.volume, w.stopStart, w.runToEnd, w.terminal,
		w.pause, w.restarting, w.checked, w.vanishing, w.web, w.web, w.network, w.copyIn, w.write, w.kill, w.restart,
		w.pipe, w.attach, w.connect,
	}
	verbs[w.rnd.IntN(len(verbs))](name)
}

// lie notes an answer that said success and was wrong.
func (w *chaosWorker) lie(format string, args ...any) {
	w.lies = append(w.lies, fmt.Sprintf(format, args...))
}

func (w *chaosWorker) runLong(name string) {
	w.made(name, chaosBox{state: "running", started: "running"},
		"run", "-d", "--name", name, "-p", "80", "-v", "/data", "busybox", "sleep", "1000")
}

func (w *chaosWorker) runShort(string) { w.try("run", "--rm", "-v", "/data", "busybox", "true") }

// says runs a command that prints name and then ends with the code, and tells
// whether it was acknowledged. A shim that is killed cuts off what it was
// streaming, whatever the code is that is learnt later, so an output may be
// missing then; it is never another, and without a kill never missing.
func (w *chaosWorker) says(name string, code int, stdin string, args ...string) bool {
	before := w.cuts.Load()
	r := w.do(stdin, args...)
	if r.Code != code {
		if r.Code == 0 {
			w.lie("%v ended with code 0, not %d", args, code)
		}
		return false
	}
	if out := r.Out(); out != name && (out != "" || w.cuts.Load() == before && before%2 == 0) {
		w.lie("%v: code %d, %q %s", args, r.Code, r.Stdout, r.Stderr)
	}
	return true
}

func (w *chaosWorker) execs(name string) {
	c, _ := w.some()
	w.says(name, 42, "", "exec", c, "sh", "-c", "echo "+name+"; exit 42")
}

func (w *chaosWorker) remove(string) {
	c, b := w.some()
	r := w.do("", "rm", "-fv", c)
	if r.Code != 0 && !strings.Contains(r.Stderr, "No such container") {
		b.doomed = true // it may have gone, or go with the next daemon, or not
		return
	}
	w.removed = append(w.removed, c)
	delete(w.boxes, c)
}

func (w *chaosWorker) build(name string) {
	file := fmt.Sprintf("FROM busybox\nRUN echo %s > /x && sleep 0.05\nCOPY . /c\n", name)
	if w.do(file, "build", "-q", "-t", "img-"+name, "-").Code == 0 {
		w.images = append(w.images, name)
	}
}

func (w *chaosWorker) create(name string) {
	w.made(name, chaosBox{state: "created", started: "exited 0"}, "create", "--name", name, "busybox", "true")
}

func (w *chaosWorker) volume(name string) {
	if w.try("volume", "create", "named-"+name) {
		w.volumes = append(w.volumes, "named-"+name)
	}
}

func (w *chaosWorker) stopStart(string) {
	c, b := w.some()
	w.afterStop(c, b, w.try("stop", "-t", "0", c))
	if w.rnd.IntN(2) == 0 && !b.gone {
		b.state = map[bool]string{true: b.started}[w.try("start", c)]
	}
}

func (w *chaosWorker) kill(string) {
	c, b := w.some()
	acknowledged := w.try("kill", c)
	if b.state == "created" && acknowledged {
		w.lie("%s was never started and could be killed", c)
	}
	w.afterStop(c, b, acknowledged)
}

func (w *chaosWorker) restart(string) {
	c, b := w.some()
	if b.gone { // between its end and its start it may go
		return
	}
	b.state = map[bool]string{true: b.started}[w.try("restart", "-t", "0", c)]
}

func (w *chaosWorker) runToEnd(name string) {
	w.made(name, chaosBox{state: "exited 3", started: "exited 3"},
		"run", "-d", "--name", name, "busybox", "sh", "-c", "usleep 300000; exit 3")
	if w.boxes[name] == nil || w.rnd.IntN(3) > 0 {
		return
	}
	if r := w.do("", "wait", name); r.Code == 0 && r.Out() != "3" && r.Out() != "255" {
		w.lie("wait for %s: %q", name, r.Stdout)
	}
}

// terminal runs with a terminal, and in one.
func (w *chaosWorker) terminal(name string) {
	name = "tty-" + name
	w.try("run", "-dit", "--name", name, "busybox", "sh")
	w.says(name, 6, "", "exec", "-t", name, "sh", "-c", "echo "+name+"; exit 6")
	if w.try("rm", "-f", name) {
		w.removed = append(w.removed, name)
	}
}

func (w *chaosWorker) pause(string) {
	c, b := w.some()
	switch b.state {
	case "running":
		b.state = map[bool]string{true: "paused"}[w.try("pause", c)]
	case "paused":
		b.state = map[bool]string{true: "running"}[w.try("unpause", c)]
	}
}

// restarting runs what ends and comes back: for ever, until stopped, or twice.
func (w *chaosWorker) restarting(name string) {
	policy := []string{"always", "unless-stopped", "on-failure:2"}[w.rnd.IntN(3)]
	b := chaosBox{state: "restarts", started: "restarts", always: policy == "always"}
	if policy == "on-failure:2" {
		b.state, b.started = "exited 3", "exited 3"
	}
	w.made(name, b, "run", "-d", "--name", name, "--restart", policy, "busybox", "sh", "-c", "usleep 200000; exit 3")
}

func (w *chaosWorker) checked(name string) {
	w.made(name, chaosBox{state: "running", started: "running", healthy: true},
		"run", "-d", "--name", name, "--health-cmd", "true", "--health-interval", "1s", "busybox", "sleep", "1000")
}

// vanishing runs with --rm: one that ends by itself, or one that is ended.
func (w *chaosWorker) vanishing(name string) {
	if w.rnd.IntN(2) == 0 {
		w.made(name, chaosBox{state: "running", started: "running", gone: true}, "run", "-d", "--rm", "--name", name, "-p", "80", "busybox", "sleep", "1000")
		return
	}
	if w.try("run", "-d", "--rm", "--name", name, "busybox", "usleep", "200000") {
		w.removed = append(w.removed, name)
	}
}

// web serves on a published port, on the default network or one of the user's.
func (w *chaosWorker) web(name string) {
	b := chaosBox{state: "running", started: "running", web: true}
	args := []string{"run", "-d", "--name", name, "-h", name, "-p", "80"}
	if len(w.networks) > 0 && w.rnd.IntN(3) > 0 {
		b.network = w.networks[w.rnd.IntN(len(w.networks))]
		args = append(args, "--network", b.network)
	}
	w.made(name, b, append(args, "busybox", "sh", "-c", httpd)...)
}

// network makes networks, a few, and removes those that nothing is on.
func (w *chaosWorker) network(name string) {
	if len(w.networks) < 3 {
		if w.try("network", "create", "net-"+name) {
			w.networks = append(w.networks, "net-"+name)
		}
		return
	}
	i := w.rnd.IntN(len(w.networks))
	n := w.networks[i]
	r := w.do("", "network", "rm", n)
	if r.Code == 0 {
		w.removedNetworks = append(w.removedNetworks, n)
		for c, b := range w.boxes {
			if b.network == n && b.state == "running" {
				w.lie("network %s was removed while %s was on it", n, c)
			}
			if b.network == n { // it does not start again
				b.started = ""
			}
		}
	}
	if r.Code == 0 || !strings.Contains(r.Stderr, "active endpoints") { // refused is kept, cut off is unknown
		w.networks = slices.Delete(w.networks, i, i+1)
	}
}

// connect moves a container's second leg.
func (w *chaosWorker) connect(string) {
	c, _ := w.some()
	if len(w.networks) == 0 {
		return
	}
	n := w.networks[w.rnd.IntN(len(w.networks))]
	if w.boxes[c] == nil || w.boxes[c].network != "" {
		return
	}
	if w.try("network", "connect", n, c) {
		w.try("network", "disconnect", n, c)
	}
}

func (w *chaosWorker) copyIn(name string) {
	c, b := w.some()
	if w.do(archiveOf("cp-"+name, name), "cp", "-", c+":/tmp").Code == 0 {
		b.files["/tmp/cp-"+name] = name
	}
}

func (w *chaosWorker) write(name string) {
	c, b := w.some()
	if w.try("exec", c, "sh", "-c", "echo "+name+" > /tmp/exec-"+name) {
		b.files["/tmp/exec-"+name] = name
	}
}

// pipe runs a shell that is told what to do.
func (w *chaosWorker) pipe(name string) {
	w.says(name, 5, "echo "+name+"; exit 5\n", "run", "-i", "--rm", "busybox", "sh")
}

// attach follows a container to its end. It may come too late for the output, or
// be cut off; the log has it in any case.
func (w *chaosWorker) attach(name string) {
	w.made(name, chaosBox{state: "exited 4", started: "exited 4"},
		"run", "-d", "--name", name, "busybox", "sh", "-c", "usleep 200000; echo "+name+"; exit 4")
	if w.boxes[name] == nil {
		return
	}
	r := w.do("", "attach", name)
	if r.Code == 0 || r.Code == 4 && r.Out() != "" && r.Out() != name {
		w.lie("attach to %s: code %d, %q %s", name, r.Code, r.Stdout, r.Stderr)
	}
	if r.Code != 4 {
		return
	}
	if r := w.do("", "logs", name); r.Code == 0 && r.Out() != name {
		w.lie("the log of %s is %q", name, r.Stdout)
	}
}
