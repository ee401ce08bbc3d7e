//go:build root

package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/test/harness"
)

const talk = "echo one; echo two >&2; sleep 0.05; echo; echo three"

// said runs a container that talks, and returns what docker logs shows of it.
func said(t *testing.T, d *harness.Daemon, name string, args ...string) {
	t.Helper()
	d.Run("docker", slices.Concat([]string{"run", "-d", "--name", name}, args, []string{"busybox", "sh", "-c", talk})...)
	want(t, "exit code", d.Run("docker", "wait", name), "0")
	want(t, "the local cache", d.Run("docker", "logs", name), "one\n\nthree")
}

func TestLogDriverSyslog(t *testing.T) {
	d := daemon(t)
	dir := t.TempDir()
	for _, c := range []struct {
		name, network, address string
		opts                   []string
	}{
		{"tcp", "tcp", "127.0.0.1:0", []string{"syslog-format=rfc5424micro", "tag={{.Name}}/{{.ImageName}}/{{.DaemonName}}"}},
		{"unix", "unix", filepath.Join(dir, "stream"), []string{"syslog-format=rfc5424micro", "tag={{.Name}}/{{.ImageName}}/{{.DaemonName}}"}},
		{"udp", "udp", "127.0.0.1:0", []string{"syslog-format=rfc5424micro", "tag={{.Name}}/{{.ImageName}}/{{.DaemonName}}"}},
		{"unixgram", "unixgram", filepath.Join(dir, "datagrams"), []string{"syslog-format=rfc5424micro", "tag={{.Name}}/{{.ImageName}}/{{.DaemonName}}"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := listen(t, c.network, c.address, splitLines)
			args := []string{"--log-driver", "syslog", "--log-opt", "syslog-address=" + c.network + "://" + r.address, "--log-opt", "syslog-facility=local3"}
			for _, o := range c.opts {
				args = append(args, "--log-opt", o)
			}
			said(t, d, c.name, args...)
			got := r.await(3)
			slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(a[:4], b[:4]) }) // the streams race
			text := fmt.Sprintf(` %s/busybox/docker \d+ %s/busybox/docker - `, c.name, c.name)
			for i, re := range []string{`^<155>1 \S+` + text + "two$", `^<158>1 \S+` + text + "one$", `^<158>1 \S+` + text + "three$"} {
				re = strings.Replace(re, `\S+`, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\S+ \S+`, 1)
				if !regexp.MustCompile(re).MatchString(got[i]) {
					t.Errorf("message %q does not match %s", got[i], re)
				}
			}
			want(t, "driver in inspect", d.Run("docker", "inspect", "-f", `{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config "syslog-facility"}}`, c.name), "syslog local3")
			d.Run("docker", "rm", c.name)
		})
	}
	t.Run("tls", func(t *testing.T) {
		ca, server := certificate(t, dir)
		r := listenTLS(t, server, splitCounted)
		said(t, d, "tls", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp+tls://"+r.address,
			"--log-opt", "syslog-tls-ca-cert="+ca, "--log-opt", "syslog-format=rfc5424")
		if got := strings.Join(r.await(3), "|"); !strings.Contains(got, " - one\n") || !strings.Contains(got, " - three\n") {
			t.Errorf("%q", got)
		}
		res := d.Try("", "docker", "run", "--rm", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp+tls://"+r.address, "busybox", "true")
		if res.Code == 0 || !strings.Contains(res.Stderr, "failed to initialize logging driver") || !strings.Contains(res.Stderr, "certificate") {
			t.Errorf("an authority nobody knows was accepted: %d %s", res.Code, res.Stderr)
		}
	})
}

func TestLogDriverGelf(t *testing.T) {
	d := daemon(t)
	check := func(t *testing.T, name string, got []string) {
		t.Helper()
		var texts []string
		for _, g := range got {
			var m map[string]any
			if err := json.Unmarshal([]byte(g), &m); err != nil {
				t.Fatalf("%v: %q", err, g)
			}
			texts = append(texts, m["short_message"].(string))
			if m["version"] != "1.1" || m["_container_name"] != name || m["_image_name"] != "busybox" || m["_color"] != "blue" {
				t.Errorf("%q", g)
			}
			if at := m["timestamp"].(float64); time.Since(time.UnixMilli(int64(at*1000))).Abs() > time.Minute {
				t.Errorf("timestamp %v", at)
			}
			if level := m["level"].(float64); (m["short_message"] == "two") != (level == 3) {
				t.Errorf("level %v of %v", level, m["short_message"])
			}
		}
		slices.Sort(texts)
		want(t, "messages", strings.Join(texts, " "), "one three two")
	}
	t.Run("tcp", func(t *testing.T) {
		r := listen(t, "tcp", "127.0.0.1:0", splitZero)
		said(t, d, "gt", "--label", "color=blue", "--log-driver", "gelf", "--log-opt", "labels=color", "--log-opt", "gelf-address=tcp://"+r.address)
		check(t, "gt", r.await(3))
	})
	t.Run("udp", func(t *testing.T) {
		r := listen(t, "udp", "127.0.0.1:0", nil)
		said(t, d, "gu", "-e", "color=blue", "--log-driver", "gelf", "--log-opt", "env=color", "--log-opt", "gelf-address=udp://"+r.address)
		var got []string
		for _, p := range r.await(3) {
			z, err := gzip.NewReader(strings.NewReader(p))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(b))
		}
		check(t, "gu", got)
	})
}

func TestLogDriverFluentd(t *testing.T) {
	dir := t.TempDir()
	ca, server := certificate(t, dir)
	t.Setenv("SSL_CERT_FILE", ca) // the daemon's
	d := daemon(t)
	start := time.Now()
	for _, c := range []struct {
		name   string
		listen func(*testing.T) *receiver
		scheme string
		opts   []string
	}{
		{"tcp", func(t *testing.T) *receiver { return listen(t, "tcp", "127.0.0.1:0", splitPacked) }, "tcp://", nil},
		{"unix", func(t *testing.T) *receiver { return listen(t, "unix", filepath.Join(dir, "f"), splitPacked) }, "unix://", nil},
		{"tls", func(t *testing.T) *receiver { return listenTLS(t, server, splitPacked) }, "tls://", nil},
		{"acknowledged", func(t *testing.T) *receiver { return listen(t, "tcp", "127.0.0.1:0", splitPackedAck) }, "tcp://", []string{"fluentd-request-ack=true"}},
		{"async", func(t *testing.T) *receiver { return listen(t, "tcp", "127.0.0.1:0", splitPacked) }, "tcp://", []string{"fluentd-async=true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.listen(t)
			args := []string{"--log-driver", "fluentd", "--log-opt", "fluentd-address=" + c.scheme + r.address, "--log-opt", "tag=it.{{.Name}}", "--log-opt", "fluentd-sub-second-precision=true"}
			for _, o := range c.opts {
				args = append(args, "--log-opt", o)
			}
			said(t, d, c.name, args...)
			var texts []string
			for _, g := range r.await(4) {
				var m struct {
					Tag    string
					Nanos  int64
					Record map[string]string
				}
				if err := json.Unmarshal([]byte(g), &m); err != nil {
					t.Fatalf("%v: %q", err, g)
				}
				texts = append(texts, m.Record["source"]+":"+m.Record["log"])
				if m.Tag != "it."+c.name || m.Record["container_name"] != "/"+c.name || len(m.Record["container_id"]) != 64 {
					t.Errorf("%s", g)
				}
				if at := time.Unix(0, m.Nanos); at.Before(start) || at.After(time.Now()) {
					t.Errorf("time %v", at)
				}
			}
			slices.Sort(texts)
			want(t, "records", strings.Join(texts, " "), "stderr:two stdout: stdout:one stdout:three")
		})
	}
	t.Run("long lines come in marked pieces", func(t *testing.T) {
		r := listen(t, "tcp", "127.0.0.1:0", splitPacked)
		d.Run("docker", "run", "--rm", "--log-driver", "fluentd", "--log-opt", "fluentd-address="+r.address, "busybox", "sh", "-c",
			"head -c 40000 /dev/zero | tr '\\0' x; echo; echo next")
		var line, marks string
		for _, g := range r.await(4) {
			var m struct{ Record map[string]string }
			if err := json.Unmarshal([]byte(g), &m); err != nil {
				t.Fatal(err)
			}
			if m.Record["log"] != "next" {
				line += m.Record["log"]
			}
			marks += m.Record["partial_ordinal"] + m.Record["partial_last"] + " "
		}
		want(t, "marks", marks, "1false 2false 3true  ")
		if len(line) != 40000 {
			t.Errorf("%d bytes", len(line))
		}
	})
}

func TestLogDriverJournald(t *testing.T) {
	// This test's own mount namespace gets a /run without a journal, then with one.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount("/run", unix.MNT_DETACH) })
	d := daemon(t)
	args := []string{"--log-driver", "journald", "--log-opt", "tag=t.{{.Name}}", "--log-opt", "labels-regex=^app", "--label", "app.x=lab\nel"}
	res := d.Try("", "docker", slices.Concat([]string{"run", "--rm"}, args, []string{"busybox", "true"})...)
	if res.Code == 0 || !strings.Contains(res.Stderr, "journald is not enabled on this host") {
		t.Errorf("without a journal: %d %s", res.Code, res.Stderr)
	}
	if err := os.MkdirAll("/run/systemd/journal", 0o755); err != nil {
		t.Fatal(err)
	}
	r := listen(t, "unixgram", "/run/systemd/journal/socket", nil)
	said(t, d, "jj", args...)
	var texts []string
	for _, e := range r.await(4) {
		m := journalFields(t, e)
		texts = append(texts, m["PRIORITY"]+m["MESSAGE"])
		if m["CONTAINER_NAME"] != "jj" || m["CONTAINER_TAG"] != "t.jj" || m["SYSLOG_IDENTIFIER"] != "t.jj" || m["IMAGE_NAME"] != "busybox" ||
			len(m["CONTAINER_ID"]) != 12 || !strings.HasPrefix(m["CONTAINER_ID_FULL"], m["CONTAINER_ID"]) || m["APP_X"] != "lab\nel" {
			t.Errorf("%v", m)
		}
	}
	slices.Sort(texts)
	want(t, "entries", strings.Join(texts, " "), "3two 6 6one 6three")
}

func journalFields(t *testing.T, e string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for e != "" {
		line, rest, _ := strings.Cut(e, "\n")
		if k, v, ok := strings.Cut(line, "="); ok {
			out[k], e = v, rest
			continue
		}
		n := binary.LittleEndian.Uint64([]byte(rest[:8]))
		out[line], e = rest[8:8+n], rest[8+n+1:]
	}
	return out
}

func TestLogDriverOptions(t *testing.T) {
	d := daemon(t, "--log-driver", "syslog", "--log-opt", "syslog-address=udp://127.0.0.1:5514", "--log-opt", "cache-max-file=3")
	want(t, "drivers", d.Run("docker", "info", "-f", "{{.LoggingDriver}} {{.Plugins.Log}}"), "syslog [fluentd gelf journald json-file local syslog]")
	d.Run("docker", "create", "--name", "cc", "busybox")
	d.Run("docker", "create", "--name", "ff", "--log-driver", "fluentd", "busybox")
	want(t, "defaults", d.Run("docker", "inspect", "-f", "{{json .HostConfig.LogConfig}}", "cc"),
		`{"Type":"syslog","Config":{"cache-max-file":"3","syslog-address":"udp://127.0.0.1:5514"}}`)
	want(t, "another driver", d.Run("docker", "inspect", "-f", "{{json .HostConfig.LogConfig}}", "ff"), `{"Type":"fluentd","Config":{"cache-max-file":"3"}}`)
	for line, text := range map[string]string{
		"syslog nosuch=1":                      "unknown log opt 'nosuch' for syslog log driver",
		"syslog syslog-address=http://x":       "unsupported scheme: 'http'",
		"syslog syslog-address=unix:///nosuch": "stat /nosuch: no such file or directory",
		"syslog syslog-facility=nosuch":        "invalid syslog facility",
		"syslog syslog-format=nosuch":          "Invalid syslog format",
		"syslog tag={{.Nosuch}}":               "invalid log opt tag",
		"syslog cache-disabled=perhaps":        "invalid value for option cache-disabled: perhaps",
		"syslog cache-max-size=x":              "invalid value for max-size",
		"syslog mode=sometimes":                "logger: logging mode not supported: sometimes",
		"syslog max-buffer-size=1m":            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
		"gelf a=b":                             "gelf-address is a required parameter",
		"gelf gelf-address=udp://127.0.0.1":    "gelf: please provide gelf-address as proto://host:port",
		"gelf gelf-address=unix:///x":          "gelf: endpoint needs to be TCP or UDP",
		"fluentd fluentd-address=udp://x":      "invalid fluentd-address (udp://x): unsupported scheme: 'udp'",
		"fluentd fluentd-async=x":              `parsing "x": invalid syntax`,
		"journald journald-x=y":                "unknown log opt 'journald-x' for journald log driver",
		"json-file syslog-facility=1":          "unknown log opt 'syslog-facility' for json-file log driver",
		"splunk a=b":                           "log driver 'splunk' is not supported",
		"awslogs a=b":                          "log driver 'awslogs' is not supported",
		"gcplogs a=b":                          "log driver 'gcplogs' is not supported",
		"logentries a=b":                       "log driver 'logentries' is not supported",
		"etwlogs a=b":                          "log driver 'etwlogs' is not supported",
	} {
		driver, opt, _ := strings.Cut(line, " ")
		if r := d.Try("", "docker", "create", "--log-driver", driver, "--log-opt", opt, "busybox"); r.Code == 0 || !strings.Contains(r.Stderr, text) {
			t.Errorf("%s: %d %q, want %q", line, r.Code, r.Stderr, text)
		}
	}
	for line, text := range map[string]string{
		"syslog syslog-address=tcp://127.0.0.1:9":   "failed to create task for container: failed to initialize logging driver: dial tcp 127.0.0.1:9: connect: connection refused",
		"gelf gelf-address=tcp://127.0.0.1:9":       "failed to initialize logging driver: gelf: cannot connect to GELF endpoint: 127.0.0.1:9 dial tcp 127.0.0.1:9: connect: connection refused",
		"fluentd fluentd-address=tcp://127.0.0.1:9": "failed to initialize logging driver: dial tcp 127.0.0.1:9: connect: connection refused",
	} {
		driver, opt, _ := strings.Cut(line, " ")
		if r := d.Try("", "docker", "run", "--rm", "--log-driver", driver, "--log-opt", opt, "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, text) {
			t.Errorf("%s: %d %q, want %q", line, r.Code, r.Stderr, text)
		}
	}
	// These start: UDP has nobody to ask, and async asks later.
	d.Run("docker", "run", "--name", "udp", "--log-driver", "gelf", "--log-opt", "gelf-address=udp://127.0.0.1:9", "busybox", "echo", "hi")
	d.Run("docker", "run", "--name", "async", "--log-driver", "fluentd", "--log-opt", "fluentd-address=127.0.0.1:9", "--log-opt", "fluentd-async=true", "busybox", "echo", "hi")
	want(t, "logs of what was never sent", d.Run("docker", "logs", "async"), "hi")
	d.Run("docker", "run", "--name", "hidden", "--log-driver", "gelf", "--log-opt", "gelf-address=udp://127.0.0.1:9", "--log-opt", "cache-disabled=true", "busybox", "echo", "hi")
	if r := d.Try("", "docker", "logs", "hidden"); r.Code == 0 || !strings.Contains(r.Stderr, "configured logging driver does not support reading") {
		t.Errorf("logs without a cache: %d %q %q", r.Code, r.Stdout, r.Stderr)
	}
}

// numbered are the numbers at the ends of messages, and how many came again.
func numbered(t *testing.T, lines []string) (seen map[int]bool, again int) {
	t.Helper()
	seen = map[int]bool{}
	for _, l := range lines {
		n := 0
		i := strings.LastIndexByte(l, ' ')
		if _, err := fmt.Sscanf(l[i+1:], "%d", &n); err != nil {
			continue // cut off by a kill; it came again
		}
		if seen[n] {
			again++
		}
		seen[n] = true
	}
	return seen, again
}

func count(n int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo number $i; done", n)
}

// awaitNumbers waits until all numbers up to n have come.
func awaitNumbers(t *testing.T, r *receiver, n int) (again int) {
	t.Helper()
	harness.Eventually(t, 60*time.Second, func() string {
		var seen map[int]bool
		if seen, again = numbered(t, r.all()); len(seen) != n {
			return fmt.Sprintf("%d of %d numbers came", len(seen), n)
		}
		return ""
	})
	return again
}

func TestLogDriverKilledDaemon(t *testing.T) {
	d := daemon(t)
	const n = 40000
	for _, c := range []struct {
		name  string
		split bufio.SplitFunc
		opts  []string
	}{
		{"syslog", splitLines, []string{"syslog-address=tcp://"}},
		{"fluentd", splitPackedAckNumbers, []string{"fluentd-address=tcp://", "fluentd-request-ack=true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := listen(t, "tcp", "127.0.0.1:0", c.split)
			args := []string{"run", "-d", "--name", c.name, "--log-driver", c.name}
			for i, o := range c.opts {
				if i == 0 {
					o += r.address
				}
				args = append(args, "--log-opt", o)
			}
			d.Run("docker", append(args, "busybox", "sh", "-c", count(n)+"; sleep 1000")...)
			for range 3 {
				before := len(r.all())
				harness.Eventually(t, 20*time.Second, func() string {
					if len(r.all()) == before && before < n {
						return "nothing comes"
					}
					return ""
				})
				d.Kill()
				time.Sleep(20 * time.Millisecond) // it logs on
				d.Launch()
			}
			again := awaitNumbers(t, r, n)
			t.Logf("%d of %d lines came twice", again, n)
			if again > n/4 {
				t.Errorf("%d of %d lines came twice", again, n)
			}
			d.Run("docker", "rm", "-f", c.name)
		})
	}
}

func TestLogDriverRemoteGoesAway(t *testing.T) {
	d := daemon(t)
	const n = 30000
	r := listen(t, "tcp", "127.0.0.1:0", splitLines)
	d.Run("docker", "run", "-d", "--name", "cc", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+r.address,
		"busybox", "sh", "-c", count(n)+"; sleep 1000")
	for range 2 {
		harness.Eventually(t, 20*time.Second, func() string {
			if len(r.all()) == 0 {
				return "nothing comes"
			}
			return ""
		})
		r.stop()
		time.Sleep(100 * time.Millisecond)
		r.start()
	}
	again := awaitNumbers(t, r, n)
	t.Logf("%d of %d lines came twice", again, n)
	d.Run("docker", "rm", "-f", "cc")
}

// TestLogDriverSlowRemote: in blocking mode the container waits for a remote
// that is behind by more than the cache holds; nothing is lost. In the other it
// does not wait.
func TestLogDriverSlowRemote(t *testing.T) {
	d := daemon(t)
	const n = 30000
	for _, c := range []struct {
		mode  string
		waits bool
	}{{"blocking", true}, {"non-blocking", false}} {
		t.Run(c.mode, func(t *testing.T) {
			r := listen(t, "tcp", "127.0.0.1:0", splitLines)
			r.paused.Store(true)
			d.Run("docker", "run", "-d", "--name", c.mode, "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+r.address,
				"--log-opt", "mode="+c.mode, "--log-opt", "cache-max-size=64k", "--log-opt", "cache-max-file=2",
				"busybox", "sh", "-c", count(n)+"; touch /done; sleep 1000")
			if c.waits {
				time.Sleep(time.Second)
				if res := d.Try("", "docker", "exec", c.mode, "test", "-e", "/done"); res.Code == 0 {
					t.Error("the container did not wait")
				}
				r.paused.Store(false)
				awaitNumbers(t, r, n)
				d.Run("docker", "exec", c.mode, "test", "-e", "/done")
			} else {
				harness.Eventually(t, 20*time.Second, func() string {
					if res := d.Try("", "docker", "exec", c.mode, "test", "-e", "/done"); res.Code != 0 {
						return "the container waits"
					}
					return ""
				})
				r.paused.Store(false)
				harness.Eventually(t, 20*time.Second, func() string {
					if seen, _ := numbered(t, r.all()); !seen[n] {
						return "the last line has not come"
					}
					return ""
				})
				harness.Eventually(t, 10*time.Second, func() string {
					if !strings.Contains(d.LogTail(), "log lines were dropped before they could be sent on") {
						return "nothing tells of what was dropped"
					}
					return ""
				})
			}
			d.Run("docker", "rm", "-f", c.mode)
		})
	}
	t.Run("a waiting container can be killed", func(t *testing.T) {
		r := listen(t, "tcp", "127.0.0.1:0", splitLines)
		r.paused.Store(true)
		d.Run("docker", "run", "-d", "--name", "ww", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+r.address,
			"--log-opt", "cache-max-size=64k", "--log-opt", "cache-max-file=1", "busybox", "sh", "-c", "yes number 1")
		time.Sleep(500 * time.Millisecond)
		begin := time.Now()
		d.Run("docker", "kill", "ww")
		d.Run("docker", "wait", "ww")
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		r.paused.Store(false)
		d.Run("docker", "rm", "ww")
	})
}

// TestLogDriverRsyslog sends to Debian's own syslog daemon.
func TestLogDriverRsyslog(t *testing.T) {
	bin := "/usr/sbin/rsyslogd"
	if _, err := os.Stat(bin); err != nil {
		t.Skip("rsyslog is not installed: " + err.Error())
	}
	dir := t.TempDir()
	out, conf := filepath.Join(dir, "out"), filepath.Join(dir, "conf")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	text := fmt.Sprintf(`
module(load="imtcp")
input(type="imtcp" port="%s" address="127.0.0.1")
template(name="t" type="string" string="%%syslogfacility-text%%.%%syslogseverity-text%% %%programname%%:%%msg%%\n")
*.* action(type="omfile" file="%s" template="t")
`, port, out)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := daemon(t)
	rs := start(t, bin, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	defer func() { _ = rs.Process.Signal(syscall.SIGTERM); _ = rs.Wait() }()
	harness.Eventually(t, 10*time.Second, func() string {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err.Error()
		}
		_ = c.Close()
		return ""
	})
	for _, format := range []string{"rfc3164", "rfc5424"} {
		said(t, d, format, "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+addr, "--log-opt", "syslog-format="+format,
			"--log-opt", "tag="+format, "--log-opt", "syslog-facility=local5")
		harness.Eventually(t, 10*time.Second, func() string {
			b, _ := os.ReadFile(out)
			for _, line := range []string{"local5.info " + format + ":", " one\n", "local5.err " + format + ":", " three\n"} {
				if !bytes.Contains(b, []byte(line)) {
					return fmt.Sprintf("no %q in %q", line, b)
				}
			}
			return ""
		})
	}
}

// TestLogDriverRestarts: what a container prints in each of its lives comes once,
// also when daemons come and go in between, and what was not sent before the end
// of one is sent by the next.
func TestLogDriverRestarts(t *testing.T) {
	d := daemon(t)
	r := listen(t, "tcp", "127.0.0.1:0", splitLines)
	d.Run("docker", "run", "--name", "lives", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+r.address,
		"busybox", "sh", "-c", "echo x >> /n; echo number $(wc -l < /n)")
	awaitNumbers(t, r, 1)
	d.Run("docker", "start", "-a", "lives")
	awaitNumbers(t, r, 2)
	d.Terminate()
	d.Launch()
	d.Run("docker", "start", "-a", "lives")
	awaitNumbers(t, r, 3)
	d.Kill()
	d.Launch()
	d.Run("docker", "start", "-a", "lives")
	awaitNumbers(t, r, 4)
	r.await(4) // and none again

	// The remote leaves after the start, and is back under the next daemon.
	d.Run("docker", "run", "-d", "--name", "late", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+r.address,
		"busybox", "sh", "-c", "until [ -e /go ]; do usleep 10000; done; echo number 5; echo number 6 >&2; echo -n number 7")
	r.stop()
	d.Run("docker", "exec", "late", "touch", "/go")
	d.Run("docker", "wait", "late")
	d.Terminate()
	r.start()
	d.Launch()
	awaitNumbers(t, r, 7)
	d.Run("docker", "rm", "late", "lives")
}
