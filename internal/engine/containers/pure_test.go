package containers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/runtime"
)

func TestTransitions(t *testing.T) {
	all := []Phase{Created, Running, Paused, Restarting, Exited, Removing, Dead}
	want := map[Phase][]Phase{
		Created:    {Running, Removing},
		Running:    {Paused, Restarting, Exited},
		Paused:     {Running, Restarting, Exited},
		Restarting: {Running, Exited},
		Exited:     {Running, Removing},
		Removing:   {Dead},
		Dead:       {Removing},
	}
	for _, from := range all {
		for _, to := range all {
			if got := from.mayBecome(to); got != slices.Contains(want[from], to) {
				t.Errorf("%s → %s: %v", from, to, got)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an impossible change went through")
		}
	}()
	(&Status{Phase: Dead}).become(Running)
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	health := func(s container.HealthStatus) *container.Health { return &container.Health{Status: s} }
	for _, tc := range []struct {
		st   Status
		h    *container.Health
		want string
	}{
		{Status{Phase: Created}, nil, "Created"},
		{Status{Phase: Running, StartedAt: now.Add(-3 * time.Minute)}, nil, "Up 3 minutes"},
		{Status{Phase: Running, StartedAt: now.Add(-3 * time.Minute)}, health(container.Healthy), "Up 3 minutes (healthy)"},
		{Status{Phase: Running, StartedAt: now}, health(container.Starting), "Up Less than a second (health: starting)"},
		{Status{Phase: Running, StartedAt: now.Add(-time.Hour)}, health(container.NoHealthcheck), "Up About an hour"},
		{Status{Phase: Paused, StartedAt: now.Add(-2 * time.Second)}, nil, "Up 2 seconds (Paused)"},
		{Status{Phase: Exited, ExitCode: 137, FinishedAt: now.Add(-2 * time.Hour)}, nil, "Exited (137) 2 hours ago"},
		{Status{Phase: Restarting, ExitCode: 1, FinishedAt: now.Add(-5 * time.Second)}, nil, "Restarting (1) 5 seconds ago"},
		{Status{Phase: Removing}, nil, "Removal In Progress"},
		{Status{Phase: Dead}, nil, "Dead"},
	} {
		if got := tc.st.text(tc.h, now); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.st.Phase, got, tc.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	var got []time.Duration
	for range 12 {
		got = append(got, b.next(time.Second))
	}
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000}
	for i := range want {
		if got[i] != want[i]*time.Millisecond {
			t.Errorf("wait %d: %v", i, got[i])
		}
	}
	if d := b.next(10 * time.Second); d != 100*time.Millisecond {
		t.Errorf("after a long run: %v", d)
	}
}

func TestShouldRestart(t *testing.T) {
	for _, tc := range []struct {
		policy   container.RestartPolicyMode
		max      int
		code     int
		stopped  bool
		restarts int
		want     bool
	}{
		{"no", 0, 1, false, 0, false},
		{"", 0, 1, false, 0, false},
		{"always", 0, 0, false, 99, true},
		{"always", 0, 0, true, 0, false},
		{"unless-stopped", 0, 0, false, 0, true},
		{"unless-stopped", 0, 0, true, 0, false},
		{"on-failure", 0, 0, false, 0, false},
		{"on-failure", 0, 1, false, 1000, true},
		{"on-failure", 3, 1, false, 2, true},
		{"on-failure", 3, 1, false, 3, false},
		{"on-failure", 3, 137, true, 0, false},
	} {
		p := container.RestartPolicy{Name: tc.policy, MaximumRetryCount: tc.max}
		if got := shouldRestart(p, tc.code, tc.stopped, tc.restarts); got != tc.want {
			t.Errorf("%+v: %v", tc, got)
		}
	}
}

func TestMerge(t *testing.T) {
	image := &container.Config{
		User: "app", Env: []string{"PATH=/bin", "A=1"}, Entrypoint: []string{"/entry"}, Cmd: []string{"serve"},
		WorkingDir: "/srv", Labels: map[string]string{"l": "image", "i": "1"}, StopSignal: "SIGQUIT",
		ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}, Volumes: map[string]struct{}{"/data": {}},
		Healthcheck: &container.HealthConfig{Test: []string{"CMD", "x"}, Interval: time.Second, Retries: 4},
		Shell:       []string{"/bin/bash", "-c"},
	}
	before := *image
	for name, tc := range map[string]struct {
		user *container.Config
		path string
		args []string
		more func(c *container.Config) bool
	}{
		"nothing given": {&container.Config{}, "/entry", []string{"serve"}, func(c *container.Config) bool {
			return c.User == "app" && c.WorkingDir == "/srv" && c.StopSignal == "SIGQUIT" && len(c.Env) == 2
		}},
		"a command":      {&container.Config{Cmd: []string{"sh"}}, "/entry", []string{"sh"}, nil},
		"an entrypoint":  {&container.Config{Entrypoint: []string{"sh"}}, "sh", []string{}, nil},
		"no entrypoint":  {&container.Config{Entrypoint: []string{}, Cmd: []string{"sh", "-l"}}, "sh", []string{"-l"}, nil},
		"reset, command": {&container.Config{Entrypoint: []string{""}, Cmd: []string{"ls"}}, "ls", []string{}, nil},
		"environment": {&container.Config{Env: []string{"A=2", "B"}}, "/entry", []string{"serve"}, func(c *container.Config) bool {
			return slices.Equal(c.Env, []string{"A=2", "B", "PATH=/bin"})
		}},
		"labels and sets": {&container.Config{
			Labels: map[string]string{"l": "mine"}, Volumes: map[string]struct{}{"/x": {}}, ExposedPorts: network.PortSet{network.MustParsePort("81/tcp"): {}},
		}, "/entry", []string{"serve"}, func(c *container.Config) bool {
			return c.Labels["l"] == "mine" && c.Labels["i"] == "1" && len(c.Volumes) == 2 && len(c.ExposedPorts) == 2
		}},
		"health check": {
			&container.Config{Healthcheck: &container.HealthConfig{Interval: time.Minute}}, "/entry",
			[]string{"serve"},
			func(c *container.Config) bool {
				return c.Healthcheck.Interval == time.Minute && c.Healthcheck.Retries == 4 && len(c.Healthcheck.Test) == 2
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := merge(tc.user, image)
			path, args, err := command(c)
			if err != nil || path != tc.path || !slices.Equal(args, tc.args) {
				t.Errorf("runs %s %q (%v)", path, args, err)
			}
			if tc.more != nil && !tc.more(c) {
				t.Errorf("%+v", c)
			}
		})
	}
	if diff := cmp.Diff(before.Labels, image.Labels); diff != "" || len(image.Volumes) != 1 {
		t.Error("the image's configuration was changed")
	}
}

func TestImageConfig(t *testing.T) {
	in := dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		Cmd: []string{"a"}, ExposedPorts: map[string]struct{}{"53/udp": {}},
	}}
	c, err := imageConfig(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.ExposedPorts[network.MustParsePort("53/udp")]; !ok {
		t.Errorf("%v", c.ExposedPorts)
	}
	if out := imageConfigOf(c); !cmp.Equal(out.ExposedPorts, in.ExposedPorts) {
		t.Errorf("%v", out.ExposedPorts)
	}
	in.ExposedPorts = map[string]struct{}{"http": {}}
	if _, err := imageConfig(in); err == nil {
		t.Error("a port called http")
	}
}

func TestDetector(t *testing.T) {
	for _, tc := range []struct {
		keys  string
		in    []string
		pass  string
		found bool
	}{
		{"", []string{"abc"}, "abc", false},
		{"pq", []string{"abc"}, "abc", false},
		{"pq", []string{"apq"}, "a", true},
		{"pq", []string{"ap", "q"}, "a", true},
		{"pq", []string{"ap", "x"}, "apx", false},
		{"pq", []string{"pp", "q"}, "p", true},
		{"ppq", []string{"pppq"}, "p", true},
		{"ppq", []string{"ppxppq"}, "ppx", true},
		{"aab", []string{"a", "a", "a", "a", "b"}, "aa", true},
		{"abac", []string{"ababac"}, "ab", true},
		{"p", []string{"xpy"}, "x", true},
	} {
		d := detector{keys: []byte(tc.keys)}
		var pass strings.Builder
		found := false
		for _, p := range tc.in {
			out, f := d.feed([]byte(p))
			pass.Write(out)
			if found = f; found {
				break
			}
		}
		if pass.String() != tc.pass || found != tc.found {
			t.Errorf("%q in %q: passed %q, found %v", tc.keys, tc.in, pass.String(), found)
		}
	}
}

// Whatever is typed: what is passed on and what is held make it up, and the
// sequence is found where it first ends.
func FuzzDetector(f *testing.F) {
	f.Add("pq", "ppq", uint8(1))
	f.Add("abab", "abaabab", uint8(3))
	f.Fuzz(func(t *testing.T, keys, in string, cut uint8) {
		if keys == "" {
			return
		}
		d := detector{keys: []byte(keys)}
		at := min(int(cut), len(in))
		a, found := d.feed([]byte(in[:at]))
		got := string(a)
		if !found {
			var b []byte
			b, found = d.feed([]byte(in[at:]))
			got += string(b)
		}
		i := strings.Index(in, keys)
		if found != (i >= 0) {
			t.Fatalf("%q in %q: found %v", keys, in, found)
		}
		want := in
		if found {
			want = in[:i]
		} else {
			got += keys[:d.held]
		}
		if got != want {
			t.Fatalf("%q in %q: passed %q, want %q", keys, in, got, want)
		}
	})
}

func TestJudge(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cfg := &container.HealthConfig{StartPeriod: 10 * time.Second, Retries: 2}
	h := &container.Health{Status: container.Starting}
	at := func(sec, code int) {
		h = judge(h, &container.HealthcheckResult{Start: start.Add(time.Duration(sec) * time.Second), ExitCode: code}, cfg, start)
	}
	check := func(status container.HealthStatus, streak int) {
		t.Helper()
		if h.Status != status || h.FailingStreak != streak {
			t.Errorf("%s, %d in a row; want %s, %d", h.Status, h.FailingStreak, status, streak)
		}
	}
	at(1, 1)
	check(container.Starting, 0)
	at(11, 1)
	check(container.Starting, 1)
	at(12, 0)
	check(container.Healthy, 0)
	at(13, 1)
	check(container.Healthy, 1)
	at(14, 1)
	check(container.Unhealthy, 2)
	at(15, 2)
	at(16, 0)
	check(container.Healthy, 0)
	if len(h.Log) != 5 || h.Log[0].Start != start.Add(12*time.Second) {
		t.Errorf("log %v", h.Log)
	}
}

func TestListFilter(t *testing.T) {
	mk := func(id, name string, age time.Duration, st Status, f func(*Record)) view {
		v := view{rec: Record{ID: id, Name: name, Created: time.Unix(1e9, 0).Add(-age), ImageID: "sha256:i", Config: &container.Config{}, HostConfig: &container.HostConfig{}}, st: st}
		if f != nil {
			f(&v.rec)
		}
		return v
	}
	views := []view{
		mk("aa1", "web", 1, Status{Phase: Running, StartedAt: time.Unix(1, 0)}, func(r *Record) {
			r.Config.Labels = map[string]string{"env": "prod"}
			r.Mounts = []Mount{{Type: "volume", Name: "data", Source: "/v", Destination: "/data"}}
		}),
		mk("aa2", "db", 2, Status{Phase: Exited, ExitCode: 3, StartedAt: time.Unix(1, 0)}, nil),
		mk("bb3", "web2", 3, Status{Phase: Paused, StartedAt: time.Unix(1, 0)}, func(r *Record) { r.ImageID = "sha256:other" }),
		mk("cc4", "new", 4, Status{Phase: Created}, nil),
	}
	for name, tc := range map[string]struct {
		f    listFilter
		want string
	}{
		"running ones":   {listFilter{}, "web web2"},
		"all":            {listFilter{all: true}, "web db web2 new"},
		"newest":         {listFilter{limit: 2}, "web db"},
		"name":           {listFilter{all: true, set: filter.Set{"name": {"^/web$", "d"}}}, "web db"},
		"id":             {listFilter{all: true, set: filter.Set{"id": {"aa"}}}, "web db"},
		"label":          {listFilter{all: true, set: filter.Set{"label": {"env=prod"}}}, "web"},
		"other label":    {listFilter{all: true, set: filter.Set{"label": {"env=test"}}}, ""},
		"status":         {listFilter{all: true, set: filter.Set{"status": {"paused", "created"}}}, "web2 new"},
		"exited":         {listFilter{all: true, exited: []int{3, 0}}, "db"},
		"before":         {listFilter{all: true, before: "aa2"}, "web2 new"},
		"since":          {listFilter{all: true, since: "bb3"}, "web db"},
		"ancestor":       {listFilter{all: true, images: []string{"sha256:other"}}, "web2"},
		"no ancestor":    {listFilter{all: true, images: []string{}}, ""},
		"volume by name": {listFilter{all: true, set: filter.Set{"volume": {"data"}}}, "web"},
		"volume by path": {listFilter{all: true, set: filter.Set{"volume": {"/data"}}}, "web"},
		"no task":        {listFilter{isTask: new(bool)}, "web web2"},
		"health":         {listFilter{set: filter.Set{"health": {"none"}}}, "web web2"},
		"isolation":      {listFilter{set: filter.Set{"isolation": {"hyperv"}}}, "web web2"}, // of Windows: means nothing here
	} {
		t.Run(name, func(t *testing.T) {
			tc.f.name = tc.f.set.Matcher("name")
			var got []string
			for i := range views {
				d := tc.f.decide(&views[i], len(got))
				if d == stop {
					break
				}
				if d == take {
					got = append(got, views[i].rec.Name)
				}
			}
			if g := strings.Join(got, " "); g != tc.want {
				t.Errorf("got %q, want %q", g, tc.want)
			}
		})
	}
}

func TestPortSpecs(t *testing.T) {
	p := network.MustParsePort
	got, err := portSpecs(
		&container.Config{ExposedPorts: network.PortSet{p("80/tcp"): {}, p("53/udp"): {}}},
		&container.HostConfig{PublishAllPorts: true, PortBindings: network.PortMap{
			p("80/tcp"): {{HostPort: "8080"}, {}}, p("90/tcp"): {{HostPort: "9000-9005"}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, s := range got {
		text = append(text, s.Container.String()+" "+itoa(int(s.HostPort))+"-"+itoa(int(s.HostEnd)))
	}
	want := []string{"53/udp 0-0", "80/tcp 0-0", "80/tcp 8080-0", "90/tcp 9000-9005"}
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

func TestPlanRestore(t *testing.T) {
	now := time.Unix(2e9, 0)
	then := time.Unix(1e9, 0)
	host := func(p container.RestartPolicyMode, rm bool) *container.HostConfig {
		return &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: p}, AutoRemove: rm}
	}
	up := Status{Phase: Running, PID: 7, StartedAt: then}
	off := Status{Phase: Exited, StartedAt: then, FinishedAt: then}
	stopped := off
	stopped.Stopped = true
	exit := &runtime.Exit{ID: "x", PID: 7, Code: 2}
	for name, tc := range map[string]struct {
		policy container.RestartPolicyMode
		rm     bool
		last   Status  // in the database
		run    *Status // in the run directory; nil after a reboot
		state  *runtime.State
		want   fate
		phase  Phase
		code   int
	}{
		"runs":                          {run: &up, state: &runtime.State{PID: 7, StartedAt: then}, want: fate{adopt: true}, phase: Running},
		"is paused":                     {run: &Status{Phase: Paused, PID: 7, StartedAt: then}, state: &runtime.State{PID: 7, StartedAt: then}, want: fate{adopt: true}, phase: Paused},
		"was starting":                  {run: &Status{Phase: Created, Starting: true}, state: &runtime.State{PID: 7, StartedAt: then}, want: fate{adopt: true}, phase: Running},
		"start cut short":               {run: &Status{Phase: Created, Starting: true}, phase: Created},
		"ended meanwhile":               {run: &up, state: &runtime.State{PID: 7, StartedAt: then, Exit: exit}, want: fate{exit: exit}, phase: Running},
		"lost":                          {run: &up, phase: Exited, code: 255},
		"lost by a reboot":              {last: up, phase: Exited, code: 255},
		"lost, always":                  {policy: "always", last: up, want: fate{restart: true}, phase: Exited, code: 255},
		"lost, on-failure":              {policy: "on-failure", last: up, want: fate{restart: true}, phase: Exited, code: 255},
		"ended well, on-failure":        {policy: "on-failure", last: off, phase: Exited},
		"stopped by hand, always":       {policy: "always", last: stopped, want: fate{restart: true}, phase: Exited},
		"stopped, unless-stopped":       {policy: "unless-stopped", last: stopped, phase: Exited},
		"ended, unless-stopped":         {policy: "unless-stopped", last: off, want: fate{restart: true}, phase: Exited},
		"never started, always":         {policy: "always", last: Status{Phase: Created}, phase: Created},
		"waited for its restart":        {policy: "on-failure", run: &Status{Phase: Restarting, StartedAt: then}, want: fate{restart: true}, phase: Exited},
		"--rm, runs":                    {rm: true, run: &up, state: &runtime.State{PID: 7, StartedAt: then}, want: fate{adopt: true}, phase: Running},
		"--rm, lost":                    {rm: true, run: &up, want: fate{remove: true}, phase: Exited, code: 255},
		"--rm, created":                 {rm: true, run: &Status{Phase: Created}, phase: Created},
		"half removed":                  {last: Status{Phase: Dead}, want: fate{remove: true}, phase: Dead},
		"older record than run-time":    {last: up, run: &off, phase: Exited},
		"exited, nothing else recorded": {last: off, phase: Exited},
	} {
		t.Run(name, func(t *testing.T) {
			rec := Record{ID: "x", Created: then, Config: &container.Config{}, HostConfig: host(tc.policy, tc.rm), Last: tc.last}
			f := found{now: now, runs: map[string]*runFile{}, live: map[string]runtime.State{}, dataDirs: []string{"x"}}
			if tc.run != nil {
				f.runs["x"] = &runFile{Status: *tc.run}
			}
			if tc.rm {
				f.runs["x"].Record = &rec
			} else {
				f.records = []Record{rec}
			}
			if tc.state != nil {
				tc.state.ID = "x"
				f.live["x"] = *tc.state
			}
			p := planRestore(f)
			if len(p.fates) != 1 || len(p.kill)+len(p.forget)+len(p.throwOut)+len(p.clearRun) != 0 {
				t.Fatalf("%+v", p)
			}
			got := p.fates[0]
			if got.adopt != tc.want.adopt || got.exit != tc.want.exit || got.restart != tc.want.restart || got.remove != tc.want.remove {
				t.Errorf("fate %+v", got)
			}
			if got.status.Phase != tc.phase || got.status.ExitCode != tc.code {
				t.Errorf("status %+v", got.status)
			}
		})
	}
	t.Run("what is nobody's", func(t *testing.T) {
		rm := Record{ID: "d", HostConfig: host("", true), Config: &container.Config{}}
		p := planRestore(found{
			now: now, dataDirs: []string{"a", "b"},
			runs: map[string]*runFile{"c": nil, "d": {Record: &rm}},
			live: map[string]runtime.State{"e": {ID: "e", PID: 3}, "f": {ID: "f", Exit: exit}},
		})
		want := restorePlan{kill: []string{"e"}, forget: []string{"f"}, throwOut: []string{"a", "b"}, clearRun: []string{"c", "d"}}
		if diff := cmp.Diff(want, p, cmp.AllowUnexported(restorePlan{})); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("what may be of a record that cannot be read", func(t *testing.T) {
		p := planRestore(found{
			now: now, dataDirs: []string{"a"}, runs: map[string]*runFile{"c": nil}, partial: true,
			live: map[string]runtime.State{"e": {ID: "e", PID: 3}, "f": {ID: "f", Exit: exit}},
		})
		if diff := cmp.Diff(restorePlan{}, p, cmp.AllowUnexported(restorePlan{})); diff != "" {
			t.Error(diff)
		}
	})
}

func TestParsePS(t *testing.T) {
	out := "UID   PID  PPID CMD\nroot   10   1 sleep  10\nroot   11   1 other\nroot    -   - thread of 11\nroot   12   1 sh -c x y\nroot    -   - thread\n"
	r, err := parsePS([]byte(out), []int{10, 12})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"root", "10", "1", "sleep 10"}, {"root", "12", "1", "sh -c x y"}, {"root", "-", "-", "thread"}}
	if diff := cmp.Diff(want, r.Processes); diff != "" {
		t.Error(diff)
	}
	if _, err := parsePS([]byte("A B\n1 2\n"), nil); err == nil {
		t.Error("no PID column")
	}
	if err := checkPSArgs([]string{"-o", "ppid=PID"}); err == nil {
		t.Error("a column renamed to PID")
	}
	if err := checkPSArgs([]string{"-o", "pid=PID"}); err != nil {
		t.Error(err)
	}
}

func TestParseProc(t *testing.T) {
	dev := "Inter-|   Receive |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  wg0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n"
	want := map[string]container.NetworkStats{"eth0": {RxBytes: 10, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 50, TxPackets: 6, TxErrors: 7, TxDropped: 8}}
	if diff := cmp.Diff(want, parseNetDev([]byte(dev), []string{"eth0", "eth1"})); diff != "" {
		t.Error(diff)
	}
	usage, cpus := parseSystemCPU([]byte("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1\nintr 5\n"))
	if usage != 28*1e7 || cpus != 2 {
		t.Errorf("%d on %d", usage, cpus)
	}
}

func TestPruneUntil(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"24h": now.Add(-24 * time.Hour), "1000000000": time.Unix(1e9, 0),
		"2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "2026-01-02": time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := pruneUntil([]string{in}, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range [][]string{{"soon"}, {"1h", "2h"}} {
		if _, err := pruneUntil(in, now); err == nil {
			t.Errorf("%q", in)
		}
	}
}

func TestConfigOfACommit(t *testing.T) {
	own := &container.Config{
		Env: []string{"A=1", "Z=9"}, WorkingDir: "/x", Cmd: []string{"old"}, Entrypoint: []string{"/old"},
		Labels: map[string]string{"l": "own"}, Shell: []string{"/bin/bash", "-c"}, OnBuild: []string{"RUN a"},
	}
	for _, c := range []struct {
		name    string
		given   *container.Config
		changes []string
		want    string // entrypoint, command, directory, environment
	}{
		{"the container's own", nil, nil, "[/old] [old] /x [A=1 Z=9]"},
		{"changed", nil, []string{"ENV A=2 B=$A", "WORKDIR sub", `CMD ["c"]`}, "[/old] [c] /x/sub [A=2 Z=9 B=1]"},
		{"an entrypoint takes the command away", nil, []string{`ENTRYPOINT ["/e"]`}, "[/e] [] /x [A=1 Z=9]"},
		{"an entrypoint and a command", nil, []string{`CMD ["c"]`, `ENTRYPOINT ["/e"]`}, "[/e] [c] /x [A=1 Z=9]"},
		{"an empty entrypoint is none given, as with docker", nil, []string{`ENTRYPOINT []`}, "[/old] [old] /x [A=1 Z=9]"},
		{"changes are made to what the request gives", &container.Config{Env: []string{"A=3"}},
			[]string{"ENV B=$A C=$Z", "WORKDIR sub"}, "[/old] [old] /sub [A=3 B=3 C= Z=9]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := committed(&CommitOptions{Config: c.given, Changes: c.changes}, own)
			if err != nil {
				t.Fatal(err)
			}
			if s := fmt.Sprintln(got.Entrypoint, got.Cmd, got.WorkingDir, got.Env); s != c.want+"\n" {
				t.Errorf("got %s want %s", s, c.want)
			}
			if own.Env[0] != "A=1" || own.Labels["l"] != "own" || got.Shell[0] != "/bin/bash" || got.OnBuild[0] != "RUN a" {
				t.Errorf("%+v; the container's: %+v", got, own)
			}
		})
	}
	if _, err := committed(&CommitOptions{Changes: []string{"RUN ls"}}, own); err == nil || err.Error() != "RUN is not a valid change command" {
		t.Errorf("RUN: %v", err)
	}
}
