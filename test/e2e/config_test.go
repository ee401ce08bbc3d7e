//go:build root

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// configured starts a daemon with a daemon.json.
func configured(t *testing.T, json string, args ...string) (d *harness.Daemon, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "daemon.json")
	writeFile(t, file, json)
	return daemon(t, append([]string{"--config-file", file}, args...)...), file
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSeccompProfileOfTheDaemon(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "no-chmod.json")
	writeFile(t, profile, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
		{"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}`)
	d, _ := configured(t, `{"seccomp-profile": "`+profile+`"}`)
	chmod := []string{"busybox", "sh", "-c", "chmod 700 /tmp && echo done; grep Seccomp: /proc/self/status | tr -d '\t '"}
	run := func(flags ...string) string {
		r := d.Try("", "docker", append(append([]string{"run", "--rm"}, flags...), chmod...)...)
		return r.Stdout + r.Stderr
	}
	if out := run(); !strings.Contains(out, "not permitted") || !strings.Contains(out, "Seccomp:2") {
		t.Errorf("by the daemon's profile: %s", out)
	}
	for flag, filter := range map[string]string{"seccomp=unconfined": "Seccomp:0", "seccomp=builtin": "Seccomp:2"} {
		want(t, flag, run("--security-opt", flag), "done\n"+filter+"\n")
	}
	want(t, "privileged", run("--privileged"), "done\nSeccomp:0\n")
	if o := d.Run("docker", "info", "-f", "{{json .SecurityOptions}}"); !strings.Contains(o, "name=seccomp,profile="+profile) {
		t.Errorf("info: %s", o)
	}
}
