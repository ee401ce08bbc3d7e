//go:build root

package attack

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skiff-containers/skiff/test/harness"
)

// build builds a Dockerfile and returns all that was printed.
func build(d *harness.Daemon, dockerfile string, args ...string) harness.Result {
	r := d.Try(dockerfile, "docker", append(append([]string{"build", "--no-cache"}, args...), "-")...)
	r.Stdout += r.Stderr
	return r
}

// dial opens a connection to the API that was taken over for the builder.
func dial(t testing.TB, d *harness.Daemon) func(context.Context, string) (net.Conn, error) {
	t.Helper()
	return func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", d.Sock)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(c, "POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
			return nil, err
		}
		head := make([]byte, 0, 512)
		for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b[0]) {
			if _, err := c.Read(b); err != nil {
				return nil, fmt.Errorf("%s: %w", head, err)
			}
		}
		return c, nil
	}
}

// A client of the builder that sends requests with holes in them.
func TestCVE_2024_23650_MalformedSolves(t *testing.T) {
	d := daemon(t)
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial(t, d)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := controlapi.NewControlClient(conn)
	op := func(o *pb.Op) []byte {
		b, err := o.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var all sync.WaitGroup
	for i, def := range []*pb.Definition{
		nil,
		{},
		{Def: [][]byte{nil}},
		{Def: [][]byte{[]byte("garbage")}},
		{Def: [][]byte{op(&pb.Op{})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Exec{}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{}}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Exec{Exec: &pb.ExecOp{Meta: &pb.Meta{}, Mounts: []*pb.Mount{nil, {Input: 99, Output: 99}}}}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{nil, {Input: 5}}}}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Source{}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "local://"}}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Merge{Merge: &pb.MergeOp{}}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}})}},
		{Def: [][]byte{op(&pb.Op{Op: &pb.Op_Build{Build: &pb.BuildOp{}}})}},
		{Def: [][]byte{op(&pb.Op{Inputs: []*pb.Input{nil, {Digest: "x", Index: -1}}})}, Metadata: map[string]*pb.OpMetadata{"x": nil}},
	} {
		for _, frontend := range []string{"", "gateway.v0", "dockerfile.v0", "nope"} {
			all.Go(func() { // some wait for a session that never comes
				ctx, stop := context.WithTimeout(ctx, time.Second)
				defer stop()
				_, err := c.Solve(ctx, &controlapi.SolveRequest{
					Ref: fmt.Sprintf("r%d%s", i, frontend), Definition: def, Frontend: frontend, FrontendInputs: map[string]*pb.Definition{"x": nil, "": def},
					Cache:     &controlapi.CacheOptions{Exports: []*controlapi.CacheOptionsEntry{nil}, Imports: []*controlapi.CacheOptionsEntry{nil, {}}},
					Exporters: []*controlapi.Exporter{nil, {}},
				})
				if err == nil {
					t.Errorf("definition %d by %q is built", i, frontend)
				}
			})
		}
	}
	all.Go(func() {
		ctx, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		_, _ = c.Solve(ctx, &controlapi.SolveRequest{})
		_, _ = c.UpdateBuildHistory(ctx, &controlapi.UpdateBuildHistoryRequest{Ref: "../x"})
	})
	all.Wait()
	if code, _ := call(t, d, http.MethodGet, "/_ping", nil); code != 200 {
		t.Fatal("the daemon has ended")
	}
	want(t, "it still builds", fmt.Sprint(build(d, "FROM busybox\nRUN true\n").Code), "0")
}

// step runs a shell's script as a build's only step, with mounts. It is executed
// each time, and yet with the caches of those before: --no-cache would give it
// caches of its own, with nothing of an attacker's in them.
func step(d *harness.Daemon, from, mounts, script string) string {
	r := d.Try(fmt.Sprintf("FROM %s\nRUN %s : %d; %s; true\n", from, mounts, steps.Add(1), script), "docker", "build", "-")
	return r.Stdout + r.Stderr
}

var steps atomic.Int64

// Two steps share a cache's subdirectory and one swaps it for a link.
func TestCVE_2024_23651_CacheSubdirectoryRace(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	const whole, sub = "--mount=type=cache,id=c,target=/c", "--mount=type=cache,id=c,target=/m,source=sub"
	read := func() string { return step(d, "busybox", sub, "cat /m/secret; echo evil > /m/new") }
	// The honest directory is seen, and a link that stays leads nowhere.
	step(d, "busybox", whole, "mkdir /c/sub; echo mine > /c/sub/secret")
	if out := read(); !strings.Contains(out, "\nmine\n") {
		t.Errorf("the cache's own directory: %s", out)
	}
	step(d, "busybox", whole, "rm -rf /c/sub; ln -s "+host+" /c/sub")
	if out := read(); strings.Contains(out, hostSecret) {
		t.Error("a step read the host's file by a link that stays")
	}
	intact()
	var done sync.WaitGroup
	done.Go(func() {
		step(d, "busybox", whole, "end=$(($(date +%s)+3)); while [ $(date +%s) -lt $end ]; do for i in 1 2 3 4 5 6 7 8 9; do rm -rf /c/sub; mkdir /c/sub; echo mine > /c/sub/secret; rm -rf /c/sub; ln -s "+host+" /c/sub; done; done")
	})
	for end := time.Now().Add(4 * raceFor); time.Now().Before(end); {
		if strings.Contains(read(), hostSecret) {
			t.Error("a step read the host's file")
		}
	}
	done.Wait()
	intact()
}

// A step puts links to the host where stubs of mounts are taken away after it.
func TestCVE_2024_23652_StubsAsLinks(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	empty := filepath.Join(filepath.Dir(host), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	swapped := 0
	for i, script := range []string{
		"umount /a/b 2>/dev/null; rm -rf /a; ln -s " + host + " /a",
		"mv /a /x; ln -s " + filepath.Dir(host) + " /a",
		"mv /a /x; mkdir /a; ln -s " + empty + " /a/empty",
		"rm -rf /a; ln -s ../../../../../../.." + filepath.Dir(host) + " /a",
	} {
		for _, at := range []string{"/a/empty", "/a/hostdir/secret"} {
			r := build(d, "FROM busybox\nRUN --mount=type="+[]string{"tmpfs", "bind"}[i%2]+",target="+at+" "+script+"; echo it is $(readlink /a)$(readlink /a/empty)\n")
			if strings.Contains(r.Stdout, "\nit is /") || strings.Contains(r.Stdout, "\nit is ..") {
				swapped++
			}
		}
	}
	if swapped < 4 { // those that are not busy
		t.Errorf("%d steps put a link there", swapped)
	}
	if _, err := os.Stat(empty); err != nil {
		t.Error("an empty file of the host's is gone")
	}
	intact()
}

// Privileges that nobody granted, by the Dockerfile, by a graph, and by a
// container of a frontend's.
func TestCVE_2024_23653_Entitlements(t *testing.T) {
	d := daemon(t)
	for _, text := range []string{
		"# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN --security=insecure cat /proc/self/status\n",
		"FROM busybox\nRUN --security=insecure cat /proc/self/status\n",
		"FROM busybox\nRUN --network=host cat /proc/net/route\n",
	} {
		r := build(d, text)
		if r.Code == 0 {
			t.Errorf("%s is built: %s", text, r.Stdout)
		}
		// The first asks for a frontend, which is nowhere to be had here.
		if !strings.HasPrefix(text, "#") && !strings.Contains(r.Stdout, "not allowed") {
			t.Errorf("%s fails for another reason: %s", text, r.Stdout)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitLong)
	defer cancel()
	c, err := bkclient.New(ctx, "", bkclient.WithContextDialer(dial(t, d)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	base := llb.Image("docker.io/library/busybox:latest")
	for name, opt := range map[string]llb.RunOption{"insecure": llb.Security(llb.SecurityModeInsecure), "host": llb.Network(llb.NetModeHost)} {
		def, err := base.Run(llb.Shlex("true"), opt).Root().Marshal(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Solve(ctx, def, bkclient.SolveOpt{}, nil); err == nil || !strings.Contains(err.Error(), "not allowed") {
			t.Errorf("a graph's %s: %v", name, err)
		}
	}
	started, tried := 0, 0
	_, err = c.Build(ctx, bkclient.SolveOpt{}, "", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := base.Marshal(ctx)
		if err != nil {
			return nil, err
		}
		res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
		if err != nil {
			return nil, err
		}
		for _, net := range []pb.NetMode{pb.NetMode_UNSET, pb.NetMode_HOST} {
			for _, sec := range []pb.SecurityMode{pb.SecurityMode_SANDBOX, pb.SecurityMode_INSECURE} {
				ctr, err := g.NewContainer(ctx, gateway.NewContainerRequest{NetMode: net, Mounts: []gateway.Mount{{Dest: "/", MountType: pb.MountType_BIND, Ref: res.Ref}}})
				if err != nil {
					if net == pb.NetMode_UNSET {
						return nil, err
					}
					continue
				}
				p, err := ctr.Start(ctx, gateway.StartRequest{Args: []string{"/bin/true"}, Cwd: "/", SecurityMode: sec})
				if err == nil {
					err = p.Wait()
				}
				tried++
				if err == nil {
					started++
					if net == pb.NetMode_HOST || sec == pb.SecurityMode_INSECURE {
						t.Errorf("a frontend's container with %v and %v runs", net, sec)
					}
				}
				_ = ctr.Release(ctx)
			}
		}
		return gateway.NewResult(), nil
	}, nil)
	if err != nil || started != 1 || tried < 2 {
		t.Errorf("a frontend's containers: %v, %d of %d started", err, started, tried)
	}
}

// Options of a mount that reach the kernel or the host as they are.
func TestCVE_2024_9407_MountOptions(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	for _, o := range []string{
		"bind-propagation=shared", "bind-propagation=rbind\\,src=" + host, "propagation=rshared", "z", "relabel=shared", "src=" + host + ",rw", "U", "from=busybox,source=/,bind-propagation=rslave,rw",
		"type=bind,from=host,source=" + host, "readwrite,from=.,source=" + host,
	} {
		r := build(d, "FROM busybox\nRUN --mount=type=bind,target=/m,"+o+" cat /m/secret /m"+host+"/secret; echo evil > /m/new; true\n")
		if strings.Contains(r.Stdout, hostSecret) {
			t.Errorf("%s: a step read the host's file", o)
		}
		if strings.HasPrefix(o, "bind-propagation") && r.Code == 0 {
			t.Errorf("%s is taken: %s", o, r.Stdout)
		}
	}
	intact()
}

// The name of a cache is a path.
func TestCVE_2024_9675_CacheNames(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	for _, m := range []string{
		"id=../../../../../../../../../.." + host, "id=" + host, "id=c,source=../../../../../../.." + host, "id=c,source=" + host, "id=..,source=..", "id=c,from=busybox,source=../../.." + host,
	} {
		r := build(d, "FROM busybox\nRUN --mount=type=cache,"+m+",target=/m cat /m/secret; ls -A /m; echo evil > /m/new; true\n")
		if strings.Contains(r.Stdout, hostSecret) {
			t.Errorf("%s: a step read the host's file", m)
		}
	}
	intact()
}

// A step swaps what another build mounts, at the same time.
func TestCVE_2024_11218_BuildsSideBySide(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	image(t, d, "evil", []entry{{name: "link", link: host}})
	const whole = "--mount=type=cache,id=s,target=/c "
	const deep = whole + "--mount=type=tmpfs,target=/c/x/deep"
	// The cache is shared, and a link that stays leads nowhere.
	step(d, "busybox", whole, "mkdir /c/x; echo mine > /c/x/secret")
	if out := step(d, "busybox", deep, "cat /c/x/secret"); !strings.Contains(out, "\nmine\n") {
		t.Errorf("the cache's own directory: %s", out)
	}
	step(d, "busybox", whole, "rm -rf /c/x; ln -s "+host+" /c/x")
	if out := step(d, "busybox", deep, "cat /c/x/secret"); strings.Contains(out, hostSecret) {
		t.Error("a step read the host's file by a link that stays")
	}
	intact()
	var done sync.WaitGroup
	done.Go(func() {
		step(d, "busybox", whole, "end=$(($(date +%s)+3)); while [ $(date +%s) -lt $end ]; do for i in 1 2 3 4 5 6 7 8 9; do rm -rf /c/x; ln -s "+host+" /c/x; rm -f /c/x; mkdir /c/x; done; done")
	})
	for end := time.Now().Add(4 * raceFor); time.Now().Before(end); {
		if strings.Contains(step(d, "evil", deep+" --mount=type=bind,from=evil,source=/link,target=/m", "cat /c/x/secret /m/secret"), hostSecret) {
			t.Error("a step read the host's file")
		}
	}
	done.Wait()
	mountsOf(t, host)
	intact()
}

// What came from elsewhere is written below the directory that was named for
// it: two builds' outputs, and a copy out of a container, whose links lead on.
func TestCVE_2025_62725_RemoteFiles(t *testing.T) {
	d := daemon(t)
	host, intact := hostDir(t, d)
	out := filepath.Join(d.Dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx := filepath.Join(d.Dir, "ctx")
	if err := os.Mkdir(ctx, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, step := range []string{"ln -s " + host + " /o/d; ln -s " + host + "/secret /o/f", "mkdir /o/d; echo evil > /o/d/secret; echo evil > /o/d/new; echo evil > /o/f"} {
		file := filepath.Join(ctx, fmt.Sprint("Dockerfile", i))
		if err := os.WriteFile(file, []byte("FROM busybox AS b\nRUN mkdir /o; "+step+"\nFROM scratch\nCOPY --from=b /o /\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := d.Try("", "skiff", "build", "-f", file, "--output", "type=local,dest="+out, ctx)
		t.Logf("output %d: %d %s", i, r.Code, r.Stderr)
		intact()
		if to, err := os.Readlink(filepath.Join(out, "f")); i == 0 && (r.Code != 0 || to != host+"/secret") {
			t.Errorf("the first output brought no link: %d %q, %v: %s", r.Code, to, err, r.Stderr)
		}
	}
	copied := filepath.Join(d.Dir, "copied")
	if err := os.Mkdir(copied, 0o755); err != nil {
		t.Fatal(err)
	}
	id := d.Run("docker", "run", "-d", "busybox", "sh", "-c", "mkdir /o; ln -s "+host+" /o/d; ln -s "+host+"/secret /o/f; exec sleep 1000")
	harness.Eventually(t, waitLong, func() string { return d.Try("", "docker", "exec", id, "readlink", "/o/f").Stderr })
	d.Run("skiff", "cp", id+":/o", copied)
	if to, err := os.Readlink(filepath.Join(copied, "o", "f")); to != host+"/secret" {
		t.Errorf("the copy brought no link: %q, %v", to, err)
	}
	d.Run("docker", "exec", id, "sh", "-c", "rm -rf /o; mkdir -p /o/d; echo evil > /o/d/secret; echo evil > /o/d/new; echo evil > /o/f")
	d.Try("", "skiff", "cp", id+":/o", copied)
	d.Try("", "skiff", "cp", id+":/o/.", copied+"/o")
	d.Try("", "skiff", "cp", id+":/o/d", copied+"/o/")
	intact()
}
