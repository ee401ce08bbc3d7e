//go:build root

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestRun(t *testing.T) {
	d := daemon(t)
	t.Run("output and exit code", func(t *testing.T) {
		r := d.Try("", "docker", "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
		want(t, "stdout", r.Stdout, "out\n")
		want(t, "stderr", r.Stderr, "err\n")
		want(t, "code", fmt.Sprint(r.Code), "7")
	})
	t.Run("stdin is passed on and closed", func(t *testing.T) {
		want(t, "sum", d.RunIn("one\ntwo\n", "docker", "run", "--rm", "-i", "busybox", "wc", "-l"), "2")
	})
	t.Run("a megabyte through stdin and back", func(t *testing.T) {
		in := strings.Repeat("0123456789abcde\n", 1<<16)
		r := d.Try(in, "docker", "run", "--rm", "-i", "busybox", "cat")
		if r.Stdout != in {
			t.Errorf("%d bytes came back of %d", len(r.Stdout), len(in))
		}
	})
	t.Run("command not found is 127", func(t *testing.T) {
		r := d.Try("", "docker", "run", "--rm", "busybox", "no-such-command")
		if r.Code != 127 || !strings.Contains(r.Stderr, "executable file not found in $PATH") {
			t.Errorf("%d %s", r.Code, r.Stderr)
		}
	})
	t.Run("not executable is 126", func(t *testing.T) {
		r := d.Try("", "docker", "run", "--rm", "busybox", "/etc/passwd")
		if r.Code != 126 || !strings.Contains(r.Stderr, "permission denied") {
			t.Errorf("%d %s", r.Code, r.Stderr)
		}
	})
	t.Run("signal is 128 and more", func(t *testing.T) {
		want(t, "code", fmt.Sprint(d.Try("", "docker", "run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$").Code), "137")
	})
	t.Run("environment, directory, user, hostname", func(t *testing.T) {
		got := d.Run("docker", "run", "--rm", "-e", "A=1", "-w", "/new/dir", "-u", "www", "-h", "box",
			"busybox", "sh", "-c", "echo $A $(pwd) $(id -u):$(id -g):$(id -G) $(hostname) $HOME")
		want(t, "facts", got, "1 /new/dir 33:33:33 50 box /var/www")
	})
	t.Run("a device outside of /dev", func(t *testing.T) {
		got := d.Run("docker", "run", "--rm", "--device", "/dev/zero:/zero", "--device", "/dev/zero:/some/where/zero", "busybox",
			"sh", "-c", "test -c /zero && head -c 3 /some/where/zero | wc -c")
		want(t, "bytes", got, "3")
	})
	t.Run("a terminal", func(t *testing.T) {
		got := d.Run("docker", "run", "--rm", "-t", "busybox", "sh", "-c", "tty; test -t 1 && echo yes")
		want(t, "tty", strings.ReplaceAll(got, "\r", ""), "/dev/pts/0\nyes")
	})
	t.Run("init reaps and forwards", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--init", "busybox", "sleep", "1000")
		got := d.Run("docker", "exec", id, "sh", "-c", "for p in /proc/[0-9]*; do echo $(tr '\\0' ' ' < $p/cmdline); done | grep '^sleep 1000$'")
		want(t, "the command beside process 1", got, "sleep 1000")
		start := time.Now()
		d.Run("docker", "stop", id)
		if time.Since(start) > 8*time.Second {
			t.Error("init did not pass SIGTERM on")
		}
		d.Run("docker", "rm", id)
	})
	t.Run("cidfile, name, labels", func(t *testing.T) {
		d.Run("docker", "run", "--cidfile", "cid", "--name", "named", "-l", "a=b", "busybox", "true")
		want(t, "label", d.Run("docker", "inspect", "-f", `{{index .Config.Labels "a"}}`, "named"), "b")
		want(t, "id", d.Run("cat", "cid"), d.Run("docker", "inspect", "-f", "{{.Id}}", "named"))
		d.Run("docker", "rm", "named")
	})
	t.Run("limits reach the cgroup", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "-m", "64m", "--cpus", "0.5", "--pids-limit", "50", "busybox", "sleep", "100")
		got := d.Run("docker", "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}", id)
		want(t, "config", got, "67108864 500000000 50")
		seen := d.Run("docker", "exec", id, "sh", "-c",
			"cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max")
		want(t, "memory limit", seen, "67108864")
		d.Run("docker", "update", "-m", "96m", "--memory-swap", "-1", id)
		want(t, "updated", d.Run("docker", "inspect", "-f", "{{.HostConfig.Memory}}", id), "100663296")
		d.Run("docker", "rm", "-f", id)
	})
	t.Run("out of memory is told", func(t *testing.T) {
		r := d.Try("", "docker", "run", "--name", "oom", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "tail /dev/zero")
		if r.Code != 137 {
			t.Errorf("code %d: %s", r.Code, r.Stderr)
		}
		want(t, "flag", d.Run("docker", "inspect", "-f", "{{.State.OOMKilled}}", "oom"), "true")
		d.Run("docker", "rm", "oom")
	})
	t.Run("confinement", func(t *testing.T) {
		got := d.Run("docker", "run", "--rm", "busybox", "sh", "-c",
			"grep -E 'CapEff|CapBnd|CapInh|CapAmb|Seccomp:|NoNewPrivs' /proc/self/status | tr -s '\\t ' ' '; "+
				"mount -t tmpfs x /mnt 2>/dev/null && echo mounted; echo x > /proc/sysrq-trigger 2>/dev/null && echo wrote; cat /proc/kcore 2>/dev/null | head -c1 | wc -c")
		for _, line := range []string{"CapInh: 0000000000000000", "CapEff: 00000000a80425fb", "CapBnd: 00000000a80425fb", "CapAmb: 0000000000000000", "Seccomp: 2"} {
			if !strings.Contains(got, line) {
				t.Errorf("no %q in %s", line, got)
			}
		}
		if strings.Contains(got, "mounted") || strings.Contains(got, "wrote") || !strings.HasSuffix(got, "0") {
			t.Errorf("not confined: %s", got)
		}
	})
	t.Run("privileged holds what the bounding set holds", func(t *testing.T) {
		out := d.Run("docker", "run", "--rm", "--privileged", "busybox", "sh", "-c", "mkdir /m; mount -t tmpfs x /m && echo mounted; grep Seccomp: /proc/self/status")
		if !strings.Contains(out, "mounted") || !strings.Contains(out, "0") {
			t.Error(out)
		}
	})
	t.Run("read-only root with a tmpfs", func(t *testing.T) {
		got := d.Run("docker", "run", "--rm", "--read-only", "--tmpfs", "/scratch:size=1m", "busybox", "sh", "-c",
			"touch /x 2>&1; touch /scratch/y && echo ok; stat -f -c %b:%S /scratch")
		if !strings.Contains(got, "Read-only file system") || !strings.Contains(got, "ok") {
			t.Error(got)
		}
	})
}

func TestLifecycle(t *testing.T) {
	d := daemon(t)
	t.Run("create start stop restart kill wait rename rm", func(t *testing.T) {
		id := d.Run("docker", "create", "--name", "aa", "busybox", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done")
		state := func() string { return d.Run("docker", "inspect", "-f", "{{.State.Status}}", id) }
		want(t, "created", state(), "created")
		d.Run("docker", "start", "aa")
		want(t, "started", state(), "running")
		harness.Eventually(t, 5*time.Second, func() string {
			if !strings.Contains(d.Run("docker", "logs", "aa"), "up") {
				return "no output yet"
			}
			return ""
		})
		d.Run("docker", "stop", "-t", "5", "aa")
		want(t, "stopped", state(), "exited")
		want(t, "trap's code", d.Run("docker", "inspect", "-f", "{{.State.ExitCode}}", id), "3")
		d.Run("docker", "restart", "aa")
		want(t, "restarted", state(), "running")
		d.Run("docker", "pause", "aa")
		want(t, "paused", state(), "paused")
		d.Run("docker", "unpause", "aa")
		d.Run("docker", "rename", "aa", "bb")
		want(t, "renamed", d.Run("docker", "inspect", "-f", "{{.Name}}", id), "/bb")
		d.Run("docker", "kill", "bb")
		want(t, "killed", d.Run("docker", "wait", "bb"), "137")
		d.Run("docker", "rm", "bb")
		if r := d.Try("", "docker", "inspect", id); r.Code == 0 {
			t.Error("still there after rm")
		}
	})
	t.Run("restart policy on-failure counts", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--restart", "on-failure:2", "busybox", "false")
		harness.Eventually(t, 15*time.Second, func() string {
			got := d.Run("docker", "inspect", "-f", "{{.RestartCount}} {{.State.Status}}", id)
			if got != "2 exited" {
				return got
			}
			return ""
		})
		d.Run("docker", "rm", id)
	})
	t.Run("restart always comes back, stop holds", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--restart", "always", "busybox", "sleep", "1000")
		pid := d.Run("docker", "inspect", "-f", "{{.State.Pid}}", id)
		d.Run("kill", "-9", pid)
		harness.Eventually(t, 10*time.Second, func() string {
			now := d.Run("docker", "inspect", "-f", "{{.State.Pid}} {{.State.Running}}", id)
			if strings.HasSuffix(now, "true") && !strings.HasPrefix(now, pid+" ") {
				return ""
			}
			return now
		})
		d.Run("docker", "stop", "-t", "1", id)
		time.Sleep(500 * time.Millisecond)
		want(t, "after stop", d.Run("docker", "inspect", "-f", "{{.State.Running}}", id), "false")
		d.Run("docker", "rm", id)
	})
	t.Run("health checks", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--health-cmd", "test -f /ok", "--health-interval", "200ms", "--health-retries", "2", "busybox", "sleep", "1000")
		health := func(s string) {
			t.Helper()
			harness.Eventually(t, 10*time.Second, func() string {
				if got := d.Run("docker", "inspect", "-f", "{{.State.Health.Status}}", id); got != s {
					return got
				}
				return ""
			})
		}
		health("unhealthy")
		d.Run("docker", "exec", id, "touch", "/ok")
		health("healthy")
		if ps := d.Run("docker", "ps", "--filter", "health=healthy", "--format", "{{.Status}}"); !strings.Contains(ps, "(healthy)") {
			t.Errorf("ps: %s", ps)
		}
		d.Run("docker", "rm", "-f", id)
	})
	t.Run("exec", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "-e", "X=main", "busybox", "sleep", "1000")
		want(t, "env and user", d.Run("docker", "exec", "-e", "Y=2", "-u", "33:50", "-w", "/tmp", id, "sh", "-c", "echo $X $Y $(id -u) $(id -g) $(pwd)"), "main 2 33 50 /tmp")
		want(t, "stdin", d.RunIn("a\nb\n", "docker", "exec", "-i", id, "wc", "-l"), "2")
		want(t, "code", fmt.Sprint(d.Try("", "docker", "exec", id, "sh", "-c", "exit 9").Code), "9")
		want(t, "missing", fmt.Sprint(d.Try("", "docker", "exec", id, "nope").Code), "127")
		want(t, "not executable", fmt.Sprint(d.Try("", "docker", "exec", id, "/etc/passwd").Code), "126")
		want(t, "same pid namespace", d.Run("docker", "exec", id, "sh", "-c", "ps -o pid,args | grep -c '^ *1 sleep 1000'"), "1")
		d.Run("docker", "exec", "-d", id, "touch", "/detached")
		harness.Eventually(t, 5*time.Second, func() string {
			return d.Try("", "docker", "exec", id, "ls", "/detached").Stderr
		})
		caps := d.Run("docker", "exec", id, "sh", "-c", "grep CapEff /proc/self/status | tr -d '\\t '; grep Seccomp: /proc/self/status | tr -d '\\t '")
		want(t, "confined like the container", caps, "CapEff:00000000a80425fb\nSeccomp:2")
		d.Run("docker", "rm", "-f", id)
	})
	t.Run("namespaces of another container", func(t *testing.T) {
		a := d.Run("docker", "run", "-d", "--name", "ns", "busybox", "sleep", "1000")
		want(t, "pid", d.Run("docker", "run", "--rm", "--pid", "container:ns", "busybox", "sh", "-c", "ps -o pid,args | grep -c '^ *1 sleep 1000'"), "1")
		ip := d.Run("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", a)
		got := d.Run("docker", "run", "--rm", "--network", "container:ns", "busybox", "ip", "-4", "addr", "show", "eth0")
		if ip == "" || !strings.Contains(got, ip+"/") {
			t.Errorf("network of the other: %s not in %s", ip, got)
		}
		d.Run("docker", "rm", "-f", a)
	})
	t.Run("ps, top, stats, diff, cp, export, commit", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--name", "ww", "busybox", "sh", "-c", "echo data > /made; rm /bin/nc; exec sleep 1000")
		harness.Eventually(t, 5*time.Second, func() string {
			return d.Try("", "docker", "exec", "ww", "ls", "/made").Stderr
		})
		if top := d.Run("docker", "top", "ww"); !strings.Contains(top, "sleep 1000") {
			t.Errorf("top: %s", top)
		}
		if s := d.Run("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "ww"); !strings.HasPrefix(s, "ww 1 ") {
			t.Errorf("stats: %s", s)
		}
		diff := d.Run("docker", "diff", "ww")
		for _, line := range []string{"A /made", "D /bin/nc", "C /bin"} {
			if !strings.Contains(diff, line) {
				t.Errorf("diff has no %q: %s", line, diff)
			}
		}
		d.Run("docker", "cp", "ww:/made", "out.txt")
		want(t, "copied out", d.Run("cat", "out.txt"), "data")
		d.Run("docker", "cp", "out.txt", "ww:/tmp/in.txt")
		want(t, "copied in", d.Run("docker", "exec", "ww", "cat", "/tmp/in.txt"), "data")
		d.Run("docker", "stop", "-t", "0", "ww")
		d.Run("docker", "cp", "out.txt", "ww:/stopped.txt")
		d.Run("docker", "cp", "ww:/stopped.txt", "back.txt")
		want(t, "copied through a stopped one", d.Run("cat", "back.txt"), "data")
		if names := exported(d, "ww"); !strings.Contains(names, "stopped.txt") || strings.Contains(names, "bin/nc\n") {
			t.Errorf("export: %s", names)
		}
		d.Run("docker", "commit", "-m", "msg", "-c", "CMD [\"cat\",\"/made\"]", "ww", "committed:1")
		want(t, "committed image runs", d.Run("docker", "run", "--rm", "committed:1"), "data")
		d.Run("docker", "rm", id)
		d.Run("docker", "rmi", "committed:1")
	})
	t.Run("events tell the story", func(t *testing.T) {
		since := fmt.Sprint(time.Now().Unix() - 1)
		d.Run("docker", "run", "--rm", "--name", "ev", "busybox", "true")
		var got []string
		harness.Eventually(t, 5*time.Second, func() string {
			got = nil
			out := d.Run("docker", "events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "container=ev", "--format", "{{json .}}")
			for line := range strings.Lines(out) {
				var e struct{ Action string }
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					return err.Error()
				}
				got = append(got, e.Action)
			}
			if !strings.Contains(strings.Join(got, " "), "destroy") {
				return fmt.Sprint("events: ", got)
			}
			return ""
		})
		want(t, "events", strings.Join(got, " "), "create attach start die destroy")
	})
}

func TestLogs(t *testing.T) {
	d := daemon(t)
	for _, driver := range []string{"local", "json-file"} {
		t.Run(driver, func(t *testing.T) {
			id := d.Run("docker", "run", "-d", "--log-driver", driver, "busybox", "sh", "-c",
				"for i in $(seq 1 20); do echo out$i; done; echo err >&2; printf tail")
			d.Run("docker", "wait", id)
			r := d.Try("", "docker", "logs", id)
			if !strings.HasPrefix(r.Stdout, "out1\nout2\n") || !strings.HasSuffix(r.Stdout, "out20\ntail") || r.Stderr != "err\n" {
				t.Errorf("%q %q", r.Stdout, r.Stderr)
			}
			last := d.Try("", "docker", "logs", "-n", "2", id)
			if n := len(strings.Fields(last.Stdout + " " + last.Stderr)); n != 2 {
				t.Errorf("the last two lines: %q %q", last.Stdout, last.Stderr)
			}
			one := d.Try("", "docker", "logs", "-t", "-n", "1", id)
			stamped := one.Stdout + one.Stderr // which stream was read last is chance
			ts, _, _ := strings.Cut(stamped, " ")
			if _, err := time.Parse(time.RFC3339Nano, ts); err != nil {
				t.Errorf("timestamp: %q", stamped)
			}
			want(t, "until long ago", d.Run("docker", "logs", "--until", "2001-01-01T00:00:00Z", id), "")
			d.Run("docker", "rm", id)
		})
	}
	t.Run("follow ends with the container", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done")
		want(t, "followed", d.Run("docker", "logs", "-f", id), "1\n2\n3\n4\n5")
		d.Run("docker", "rm", id)
	})
	t.Run("rotation bounds the disk", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--log-driver", "json-file", "--log-opt", "max-size=10k", "--log-opt", "max-file=3", "busybox", "sh", "-c",
			"for i in $(seq 1 2000); do echo line number $i of many; done")
		d.Run("docker", "wait", id)
		path := d.Run("docker", "inspect", "-f", "{{.LogPath}}", id)
		files := strings.Fields(d.Run("sh", "-c", "ls "+path+"*"))
		if len(files) != 3 {
			t.Errorf("files: %v", files)
		}
		if out := d.Run("docker", "logs", "-n", "1", id); out != "line number 2000 of many" {
			t.Errorf("last line: %q", out)
		}
		d.Run("docker", "rm", id)
	})
	t.Run("none keeps nothing", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "--log-driver", "none", "busybox", "echo", "hi")
		d.Run("docker", "wait", id)
		if r := d.Try("", "docker", "logs", id); !strings.Contains(r.Stderr, "configured logging driver does not support reading") {
			t.Errorf("%+v", r)
		}
		d.Run("docker", "rm", id)
	})
}

func TestAttach(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "create", "-i", "busybox", "sh", "-c", "while read l; do echo got $l; done; echo end; exit 4")
	r := d.Try("one\ntwo\n", "docker", "start", "-a", "-i", id)
	want(t, "output", r.Stdout, "got one\ngot two\nend\n")
	want(t, "code", fmt.Sprint(r.Code), "4")
	for range 10 { // at once: the last run's end is still being cleared up
		r = d.Try("again\n", "docker", "start", "-a", "-i", id)
		want(t, "output of another start", r.Stdout, "got again\nend\n")
	}
	d.Run("docker", "rm", id)

	t.Run("leaving a container that keeps its stdin", func(t *testing.T) {
		id := d.Run("docker", "run", "-d", "-i", "busybox", "sh", "-c", "while read l; do echo got $l; done")
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		cmd := d.Cmd(ctx, "docker", "attach", "--sig-proxy=false", id)
		cmd.Stdin = strings.NewReader("one\n")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "got one\n") {
			t.Errorf("%v %q", err, out)
		}
		want(t, "still running", d.Run("docker", "inspect", "-f", "{{.State.Running}}", id), "true")
		d.Run("docker", "rm", "-f", id)
	})
}

// exported lists the names in a container's export.
func exported(d *harness.Daemon, name string) string {
	d.Run("docker", "export", "-o", "exported.tar", name)
	return d.Run("tar", "-tf", "exported.tar")
}

// What docker's init layer has is there, and is no change of the container's.
func TestStubLayer(t *testing.T) {
	d := daemon(t)
	look := `test -f /.dockerenv && test ! -s /.dockerenv && readlink /etc/mtab && grep -c " / " /etc/mtab`
	for _, flags := range [][]string{nil, {"--read-only"}, {"--network", "none", "--rm", "-v", "/etc"}} {
		got := d.Run("docker", append(append([]string{"run"}, flags...), "busybox", "sh", "-c", look)...)
		want(t, strings.Join(flags, " "), got, "/proc/mounts\n1")
	}
	d.Run("docker", "run", "--name", "still", "busybox", "true")
	want(t, "diff of one that did nothing", d.Run("docker", "diff", "still"), "")
	d.Run("docker", "commit", "still", "again")
	want(t, "files in the layer of its commit", d.Run("sh", "-c",
		`docker save again | tar xO --wildcards '*manifest.json' >/dev/null; docker save again > again.tar;
		l=$(tar xOf again.tar manifest.json | sed 's/.*"Layers":\[//; s/].*//; s/"//g; s/.*,//'); tar xOf again.tar "$l" | tar t`), "")
	d.Run("docker", "run", "--name", "busy", "busybox", "sh", "-c", "echo x > /etc/x; rm /.dockerenv")
	want(t, "diff", d.Run("docker", "diff", "busy"), "D /.dockerenv\nC /etc\nA /etc/x")
	want(t, "export", d.Run("sh", "-c", "docker export still | tar t | grep -e dockerenv -e mtab | sort"), ".dockerenv\netc/mtab")
	want(t, "cp of a stopped one", d.Run("sh", "-c", "docker cp still:/.dockerenv - | tar tv | grep -c 'rwxr-xr-x.*dockerenv'"), "1")
}
