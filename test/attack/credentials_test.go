//go:build root

package attack

import (
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// What a process may do, as the kernel tells it.
const (
	defaultCaps = "00000000a80425fb"
	noCaps      = "0000000000000000"
	showStatus  = `awk '/^(Uid|Gid|Groups|Cap|NoNewPrivs)/{n=$1; sub(/:/,"",n); $1=""; sub(/^ /,""); sub(/ $/,""); print n"="$0}' /proc/self/status`
)

func statusOf(t *testing.T, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		out[k] = v
	}
	if out["Uid"] == "" {
		t.Fatalf("no status: %q", text)
	}
	return out
}

// users are who a command may run as, and the ids and groups that gives: those
// that the image's own files tell, the primary one always among them.
var users = []struct{ spec, uid, gid, groups string }{
	{"", "0", "0", "0 4"},
	{"root", "0", "0", "0 4"},
	{"www", "33", "33", "33 50"},
	{"33", "33", "33", "33 50"},
	{"www:extra", "33", "50", "50"},
	{"33:0", "33", "0", "0"},
	{"nobody", "65534", "65534", "65534"},
	{"7", "7", "0", "0"},
	{"7:8", "7", "8", "8"},
	{"0:8", "0", "8", "8"},
}

// everyCommand runs a shell's script as each user, at run and in an exec.
func everyCommand(t *testing.T, d *harness.Daemon, script string, check func(t *testing.T, user int, how, out string)) {
	t.Helper()
	id := d.Run("docker", "run", "-d", "busybox", "sleep", "1000")
	for i, u := range users {
		check(t, i, "run as "+u.spec, d.Run("docker", "run", "--rm", "--user", u.spec, "busybox", "sh", "-c", script))
		check(t, i, "exec as "+u.spec, d.Run("docker", "exec", "--user", u.spec, id, "sh", "-c", script))
	}
}

// No capability is inheritable or ambient: not by default, not for added ones,
// not for whoever is not root.
func TestCVE_2022_24769_InheritableCapabilities(t *testing.T) {
	d := daemon(t)
	everyCommand(t, d, showStatus, func(t *testing.T, user int, how, out string) {
		t.Helper()
		st := statusOf(t, out)
		eff := defaultCaps
		if users[user].uid != "0" {
			eff = noCaps
		}
		for k, v := range map[string]string{"CapInh": noCaps, "CapAmb": noCaps, "CapBnd": defaultCaps, "CapPrm": eff, "CapEff": eff} {
			if st[k] != v {
				t.Errorf("%s: %s is %s, want %s", how, k, st[k], v)
			}
		}
	})
	for _, args := range [][]string{
		{"--cap-add", "NET_ADMIN"},
		{"--cap-add", "ALL"},
		{"--privileged"},
		{"--user", "www", "--cap-add", "NET_ADMIN"},
		{"--user", "www", "--privileged"},
		{"--cap-drop", "ALL"},
		{"--cap-drop", "ALL", "--cap-add", "CHOWN"},
		{"--security-opt", "no-new-privileges"},
	} {
		st := statusOf(t, d.Run("docker", append(append([]string{"run", "--rm"}, args...), "busybox", "sh", "-c", showStatus)...))
		if st["CapInh"] != noCaps || st["CapAmb"] != noCaps {
			t.Errorf("%v: %v", args, st)
		}
	}
	if st := statusOf(t, d.Run("docker", "run", "--rm", "--cap-drop", "ALL", "busybox", "sh", "-c", showStatus)); st["CapBnd"] != noCaps || st["CapEff"] != noCaps {
		t.Errorf("without any: %v", st)
	}
	want(t, "new privileges", statusOf(t, d.Run("docker", "run", "--rm", "--security-opt", "no-new-privileges", "busybox", "sh", "-c", showStatus))["NoNewPrivs"], "1")
}

// An exec with more capabilities than the container has inherits none either,
// and one without has no more than it.
func TestCVE_2022_29162_ExecCapabilities(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "--cap-drop", "ALL", "--cap-add", "CHOWN", "busybox", "sleep", "1000")
	for _, tc := range []struct {
		args     []string
		eff, bnd string
	}{
		{nil, "0000000000000001", "0000000000000001"},
		{[]string{"-u", "www"}, noCaps, "0000000000000001"},
		{[]string{"--privileged"}, "", ""},
		{[]string{"--privileged", "-u", "www"}, noCaps, ""},
	} {
		st := statusOf(t, d.Run("docker", append(append([]string{"exec"}, tc.args...), id, "sh", "-c", showStatus)...))
		if st["CapInh"] != noCaps || st["CapAmb"] != noCaps || tc.eff != "" && st["CapEff"] != tc.eff || tc.bnd != "" && st["CapBnd"] != tc.bnd {
			t.Errorf("exec %v: %v", tc.args, st)
		}
	}
}

// Groups are exactly those that the image tells, for every way to name a user.
func TestCVE_2022_36109_Groups(t *testing.T) {
	d := daemon(t)
	everyCommand(t, d, showStatus, func(t *testing.T, user int, how, out string) {
		t.Helper()
		st, u := statusOf(t, out), users[user]
		if strings.Join(strings.Fields(st["Uid"]), " ") != strings.Repeat(u.uid+" ", 3)+u.uid {
			t.Errorf("%s: user %s", how, st["Uid"])
		}
		if strings.Join(strings.Fields(st["Gid"]), " ") != strings.Repeat(u.gid+" ", 3)+u.gid || st["Groups"] != u.groups {
			t.Errorf("%s: group %s, groups %s, want %s, %s", how, st["Gid"], st["Groups"], u.gid, u.groups)
		}
	})
}

// A file that is kept from a group is kept from it although a setgid program
// changes the process's own group.
func TestCVE_2022_2995_NegativeGroupPermissions(t *testing.T) {
	d := daemon(t)
	image(t, d, "evil", []entry{{name: "denied", body: "denied to its group"}})
	// A shell would give its group up: it is the test's own program.
	reads := program(t, "reads")
	prepare := append(append([]string{"run", "--name", "prepare"}, reads...), "evil", "sh", "-c", "chown 0:33 /denied; chmod 604 /denied; cp /attack /bin/asextra; chown 0:50 /bin/asextra; chmod 2755 /bin/asextra")
	d.Run("docker", prepare...)
	d.Run("docker", "commit", "prepare", "prepared")
	env := reads[2:4] // the program's name
	run := func(args ...string) string {
		return d.Run("docker", append(append([]string{"run"}, env...), args...)...)
	}
	id := run("-d", "--user", "www", "prepared", "sleep", "1000")
	// The program runs as group "extra" and would be one of the others.
	script := "id -g; asextra /denied; cat /denied 2>/dev/null; true"
	want(t, "run", run("--rm", "--user", "www", "prepared", "sh", "-c", script), "33\n50: open /denied: permission denied")
	want(t, "exec", d.Run("docker", "exec", id, "sh", "-c", script), "33\n50: open /denied: permission denied")
	want(t, "in no such group", run("--rm", "--user", "33:8", "prepared", "asextra", "/denied"), "50: denied to its group")
	want(t, "another's exec", d.Run("docker", "exec", "-u", "nobody", id, "sh", "-c", "cat /denied"), "denied to its group")
}

// Groups that were added are there, beside the primary one, and no other; the
// user of an image is no exception.
func TestCVE_2023_25173_AddedGroups(t *testing.T) {
	d := daemon(t)
	groups := func(args ...string) string {
		return statusOf(t, d.Run("docker", append(append([]string{"run", "--rm"}, args...), "sh", "-c", showStatus)...))["Groups"]
	}
	want(t, "root", groups("--group-add", "extra", "busybox"), "0 4 50")
	want(t, "www", groups("--user", "www", "--group-add", "7", "--group-add", "adm", "busybox"), "4 7 33 50")
	image(t, d, "asuser", nil, "USER www")
	want(t, "the image's", groups("asuser"), "33 50")
	image(t, d, "asboth", nil, "USER 33:8")
	want(t, "the image's group", groups("asboth"), "8")
	want(t, "and more", groups("--group-add", "extra", "asboth"), "8 50")
	r := d.Try("FROM asuser\nRUN "+showStatus+"\n", "docker", "build", "--no-cache", "-")
	if !strings.Contains(r.Stdout+r.Stderr, "Groups=33 50") || !strings.Contains(r.Stdout+r.Stderr, "CapInh="+noCaps) {
		t.Errorf("a build's step: %s%s", r.Stdout, r.Stderr)
	}
}
