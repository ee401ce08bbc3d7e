//go:build linux

package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func TestWanted(t *testing.T) {
	for _, c := range []struct {
		args, rest []string
		ok         bool
	}{
		{[]string{"/usr/bin/skiff-runtime", "list"}, []string{"list"}, true},
		{[]string{"skiff-shim", "runtime", "state", "x"}, []string{"state", "x"}, true},
		{[]string{"skiff-shim", "--run-dir", "/x"}, nil, false},
		{[]string{"skiff-shim"}, nil, false},
	} {
		if rest, ok := Wanted(c.args); ok != c.ok || !slices.Equal(rest, c.rest) {
			t.Errorf("%q: %q, %v", c.args, rest, ok)
		}
	}
}

func TestFlagsAndArguments(t *testing.T) {
	for name, c := range map[string]struct {
		mixed bool
		args  []string
		rest  []string
		all   bool
		env   []string
		fails bool
	}{
		"flags first":                  {true, []string{"--all", "-e", "A=1", "--env=B=2", "id", "9"}, []string{"id", "9"}, true, []string{"A=1", "B=2"}, false},
		"flags behind arguments":       {true, []string{"id", "--all", "9"}, []string{"id", "9"}, true, nil, false},
		"nothing is a flag behind two": {true, []string{"id", "--", "--all"}, []string{"id", "--all"}, false, nil, false},
		"a command's own flags stay":   {false, []string{"-e", "A=1", "id", "ls", "--all"}, []string{"id", "ls", "--all"}, false, []string{"A=1"}, false},
		"an explicit no":               {true, []string{"--all=false", "id"}, []string{"id"}, false, nil, false},
		"unknown":                      {true, []string{"id", "--nonsense"}, nil, false, nil, true},
		"a value is missing":           {true, []string{"id", "--env"}, nil, false, nil, true},
	} {
		fs := newFlags("x")
		var all bool
		var env []string
		boolFlag(fs, &all, "all", "a", "")
		listFlag(fs, &env, "env", "e", "")
		rest, err := parse(fs, c.args, c.mixed)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && (!slices.Equal(rest, c.rest) || all != c.all || !slices.Equal(env, c.env)) {
			t.Errorf("%s: %q %v %q", name, rest, all, env)
		}
	}
}

// Engines give these flags; each verb must know them.
func TestVerbsKnowTheFlagsOfRunc(t *testing.T) {
	for name, flags := range map[string]string{
		"create":     "bundle b console-socket pid-file pidfd-socket no-pivot no-new-keyring preserve-fds",
		"run":        "bundle b console-socket pid-file pidfd-socket no-pivot no-new-keyring preserve-fds detach d keep no-subreaper",
		"exec":       "process p tty t user u cwd env e detach d pid-file console-socket cap c apparmor process-label no-new-privs additional-gids g preserve-fds ignore-paused cgroup pidfd-socket",
		"kill":       "all a",
		"delete":     "force f",
		"ps":         "format f",
		"list":       "format f quiet q",
		"events":     "stats interval",
		"spec":       "bundle b rootless",
		"update":     "resources r blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory cpu-idle memory-reservation memory-swap pids-limit l3-cache-schema mem-bw-schema",
		"checkpoint": "image-path work-path parent-path leave-running tcp-established tcp-skip-in-flight link-remap ext-unix-sk shell-job lazy-pages status-fd page-server file-locks pre-dump manage-cgroups-mode empty-ns auto-dedup",
		"restore":    "console-socket image-path work-path tcp-established ext-unix-sk shell-job file-locks manage-cgroups-mode bundle b detach d pid-file no-subreaper no-pivot empty-ns auto-dedup lazy-pages lsm-profile lsm-mount-context",
	} {
		i := slices.IndexFunc(verbs(), func(v verb) bool { return v.name == name })
		if i < 0 {
			t.Errorf("no verb %s", name)
			continue
		}
		fs := newFlags(name)
		verbs()[i].setup(&app{}, fs)
		for f := range strings.FieldsSeq(flags) {
			if fs.Lookup(f) == nil {
				t.Errorf("%s does not know --%s", name, f)
			}
		}
	}
}

func testApp(t *testing.T) (*app, *bytes.Buffer) {
	t.Helper()
	out := &bytes.Buffer{}
	return &app{log: newLogger(io.Discard, "text", false), out: out, err: io.Discard}, out
}

func TestRefusals(t *testing.T) {
	root := t.TempDir()
	for args, want := range map[string]string{
		"--log-format xml list":      "invalid log-format: xml",
		"--root / list":              "--root must not be /",
		"fly":                        `no such command: "fly"`,
		"state":                      `skiff-runtime: "state" requires exactly 1 argument(s)`,
		"kill":                       `skiff-runtime: "kill" requires a minimum of 1 argument(s)`,
		"kill a b c":                 `skiff-runtime: "kill" requires a maximum of 2 argument(s)`,
		"state nobody":               "container does not exist",
		"start nobody":               "container does not exist",
		"delete nobody":              "container does not exist",
		"state ../x":                 `invalid container ID format: "../x"`,
		"kill nobody NONSENSE":       `unknown signal "NONSENSE"`,
		"ps --format x nobody":       "invalid format option",
		"events --interval 0 nobody": "duration interval must be greater than 0",
	} {
		a, _ := testApp(t)
		err := a.run(context.Background(), append([]string{"--root", root}, strings.Fields(args)...))
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v", args, err)
		}
	}
	a, _ := testApp(t)
	if err := a.run(context.Background(), []string{"--root", root, "delete", "--force", "nobody"}); err != nil {
		t.Errorf("delete --force: %v", err)
	}
}

func TestLogIsWhatEnginesRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	a, _ := testApp(t)
	if err := a.openLog(path, "json"); err != nil {
		t.Fatal(err)
	}
	a.log.Error("it failed")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var line struct{ Level, Msg, Time string }
	if err := json.Unmarshal(text, &line); err != nil || line.Level != "error" || line.Msg != "it failed" || line.Time == "" || !a.logFile {
		t.Errorf("%s: %v", text, err)
	}
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"9": 9, "KILL": 9, "SIGKILL": 9, "term": 15, "0": 0, "RTMIN+3": 37, "SIGRTMAX": 64, "sigrtmax-1": 63,
		"65": -1, "-1": -1, "SIGRTMIN-1": -1, "": -1, "BOGUS": -1,
	} {
		if sig, err := parseSignal(text); (err != nil) != (want < 0) || err == nil && sig != want {
			t.Errorf("%q: %v, %v", text, sig, err)
		}
	}
}

func TestReserve(t *testing.T) {
	a := &app{root: filepath.Join(t.TempDir(), "root")}
	c, err := a.reserve("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.reserve("one"); !errs.Is(err, errs.Conflict) {
		t.Errorf("the same id again: %v", err)
	}
	c.record = record{ID: "one", Spec: exampleSpec(false)}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if st, err := c.status(); st != creating || err != nil {
		t.Errorf("while it is made: %s, %v", st, err)
	}
	c.unlock()
	got, err := a.loadLocked("one")
	if err != nil {
		t.Fatal(err)
	}
	defer got.unlock()
	if diff := cmp.Diff(c.record, got.record); diff != "" {
		t.Error(diff)
	}
	st, err := os.Stat(got.dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st.Mode(), err)
	}
}

func TestExecProcess(t *testing.T) {
	own := &specs.Process{Args: []string{"init"}, Cwd: "/", Env: []string{"A=1"}, Terminal: true, User: specs.User{UID: 1, AdditionalGids: []uint32{5}}}
	fs := newFlags("exec")
	var f execFlags
	f.register(fs)
	args, err := parse(fs, strings.Fields("--user 7:8 -g 9 --env B=2 --cwd /tmp --cap CAP_KILL --no-new-privs sh -c x"), false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.of(own, args)
	if err != nil {
		t.Fatal(err)
	}
	caps := []string{"CAP_KILL"}
	want := &specs.Process{
		Args: []string{"sh", "-c", "x"}, Cwd: "/tmp", Env: []string{"A=1", "B=2"}, NoNewPrivileges: true,
		User:         specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{5, 9}},
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(own.Env) != 1 || len(own.User.AdditionalGids) != 1 {
		t.Error("the container's own process was changed")
	}
	for _, bad := range []string{"x", "1:x", "-1", "1:4294967296"} {
		if _, err := (&execFlags{user: bad}).of(own, []string{"sh"}); !errs.Is(err, errs.Invalid) {
			t.Errorf("user %q: %v", bad, err)
		}
	}
}

func TestUpdateFlags(t *testing.T) {
	fs := newFlags("update")
	var f limitFlags
	f.register(fs)
	if err := fs.Parse(strings.Fields("--memory 64m --memory-swap -1 --cpu-share 512 --cpu-quota -1 --pids-limit 20 --cpuset-cpus 0-1")); err != nil {
		t.Fatal(err)
	}
	r := &specs.LinuxResources{}
	if err := f.apply(r); err != nil {
		t.Fatal(err)
	}
	mem, none, shares, pids := int64(64<<20), int64(-1), uint64(512), int64(20)
	want := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &mem, Swap: &none}, CPU: &specs.LinuxCPU{Shares: &shares, Quota: &none, Cpus: "0-1"}, Pids: &specs.LinuxPids{Limit: &pids},
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	if err := newUpdate().Parse([]string{"--cpu-share", "-3"}); err == nil {
		t.Error("a negative share is taken")
	}
}

func newUpdate() *flag.FlagSet {
	fs := newFlags("update")
	(&limitFlags{}).register(fs)
	return fs
}

func TestSpecIsWhatCreateTakes(t *testing.T) {
	for _, s := range []*specs.Spec{exampleSpec(false), exampleSpec(true)} {
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeSpec(data); err != nil {
			t.Error(err)
		}
	}
	s := exampleSpec(true)
	withoutRoot(s, 1000, 1001)
	if s.Linux.Resources != nil || s.Linux.UIDMappings[0].HostID != 1000 || s.Linux.GIDMappings[0].HostID != 1001 {
		t.Error("rootless: still asks for what needs root")
	}
}

func TestSpecsThatAreRefused(t *testing.T) {
	for change, edit := range map[string]func(*specs.Spec){
		"ociVersion \"x\" is not a version":              func(s *specs.Spec) { s.Version = "x" },
		"ociVersion 2.0.0 is not supported: only 1.x is": func(s *specs.Spec) { s.Version = "2.0.0" },
		"root must be specified":                         func(s *specs.Spec) { s.Root = nil },
		"process property must not be empty":             func(s *specs.Spec) { s.Process = nil },
		"args must not be empty":                         func(s *specs.Spec) { s.Process.Args = nil },
		"cwd must be an absolute path":                   func(s *specs.Spec) { s.Process.Cwd = "x" },
		"rlimit RLIMIT_NOFILE is given twice":            func(s *specs.Spec) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits...) },
		"malformed spec file: duplicated ns \"pid\"":     func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) },
		"the configuration is for another platform":      func(s *specs.Spec) { s.Windows = &specs.Windows{} },
	} {
		s := exampleSpec(false)
		edit(s)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeSpec(data); err == nil || err.Error() != change {
			t.Errorf("want %s, got %v", change, err)
		}
	}
}

func TestPsLines(t *testing.T) {
	text := "UID PID CMD\nroot 1 init\nroot 12 sh\nroot 120 sleep\n"
	got, err := psLines(text, []int{12})
	if err != nil || !slices.Equal(got, []string{"UID PID CMD", "root 12 sh"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := psLines("CMD\nsh\n", []int{12}); err == nil {
		t.Error("no column of pids, and no error")
	}
}

func FuzzState(f *testing.F) {
	data, _ := json.Marshal(record{ID: "x", PID: 1, Spec: exampleSpec(false)})
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeRecord(data); err == nil && (checkID(r.ID) != nil || r.Spec.Linux == nil) {
			t.Error("taken, though something is missing")
		}
	})
}

func FuzzProcess(f *testing.F) {
	data, _ := json.Marshal(exampleSpec(false).Process)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := decodeProcess(data); err == nil && (len(p.Args) == 0 || !filepath.IsAbs(p.Cwd)) {
			t.Error("taken, though something is missing")
		}
	})
}
