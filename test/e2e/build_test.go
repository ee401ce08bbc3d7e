//go:build root

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// buildContext writes files below a fresh directory of the daemon's.
func buildContext(t *testing.T, d *harness.Daemon, files map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp(d.Dir, "ctx-")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBuild(t *testing.T) {
	d := daemon(t)
	t.Run("multi-stage with args, ignore, user, entrypoint", func(t *testing.T) {
		dir := buildContext(t, d, map[string]string{
			"Dockerfile": `FROM busybox AS one
ARG WHO=nobody
RUN echo built for $WHO > /made && id -u > /uid
COPY . /ctx/
FROM busybox
ENV GREETING=hello
WORKDIR /srv
COPY --from=one /made /uid ./
COPY --from=one /ctx /ctx
RUN ls /ctx > /srv/list
USER www
LABEL a=b
EXPOSE 80
VOLUME /data
ENTRYPOINT ["sh", "-c"]
CMD ["echo $GREETING; cat made; id -u; cat list"]
`,
			"keep.txt": "x", "secret.key": "y", ".dockerignore": "*.key\n",
		})
		out := d.Run("docker", "build", "-t", "app:1", "--build-arg", "WHO=you", dir)
		if !strings.Contains(out, "Successfully built ") || !strings.Contains(out, "Successfully tagged app:1") || !strings.Contains(out, "Step 1/") {
			t.Errorf("build: %s", out)
		}
		got := d.Run("docker", "run", "--rm", "app:1")
		if !strings.HasPrefix(got, "hello\nbuilt for you\n33\n") || strings.Contains(got, "secret.key") || !strings.Contains(got, "keep.txt") {
			t.Errorf("run: %s", got)
		}
		id := d.Run("docker", "inspect", "-f", "{{.Id}}", "app:1")
		again := d.Run("docker", "build", "-q", "-t", "app:2", "--build-arg", "WHO=you", dir)
		want(t, "cached build", again, id)
		target := d.Run("docker", "build", "-q", "--target", "one", dir)
		want(t, "target", d.Run("docker", "run", "--rm", target, "cat", "/made"), "built for nobody")
		cfg := d.Run("docker", "inspect", "-f", `{{.Config.User}} {{.Config.WorkingDir}} {{index .Config.Labels "a"}} {{.Config.Entrypoint}}`, "app:1")
		want(t, "config", cfg, "www /srv b [sh -c]")
		if h := d.Run("docker", "history", "--format", "{{.CreatedBy}}", "app:1"); !strings.Contains(h, "ENTRYPOINT") {
			t.Errorf("history: %s", h)
		}
	})
	t.Run("confined like a container", func(t *testing.T) {
		dir := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN grep -E 'CapEff|Seccomp:' /proc/self/status | tr -d '\\t ' > /facts; mount -t tmpfs x /tmp && echo mounted >> /facts; true\n"})
		img := d.Run("docker", "build", "-q", dir)
		want(t, "facts", d.Run("docker", "run", "--rm", img, "cat", "/facts"), "CapEff:00000000a80425fb\nSeccomp:2")
	})
	t.Run("failures", func(t *testing.T) {
		for name, tc := range map[string]struct{ file, want string }{
			"a failing command":   {"FROM busybox\nRUN exit 3\n", "returned a non-zero code: 3"},
			"unknown instruction": {"FROM busybox\n\nFOO bar\n", "line 3"},
			"missing file":        {"FROM busybox\nCOPY nope /\n", "nope"},
			"no such stage":       {"FROM busybox\nCOPY --from=nowhere:1 /a /b\n", "nowhere"},
			"empty":               {"", "Dockerfile"},
		} {
			dir := buildContext(t, d, map[string]string{"Dockerfile": tc.file})
			r := d.Try("", "docker", "build", dir)
			if r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, tc.want) {
				t.Errorf("%s: %d %s %s", name, r.Code, r.Stdout, r.Stderr)
			}
		}
	})
	t.Run("commands that cannot start", func(t *testing.T) {
		for cmd, code := range map[string]int{`["/nope"]`: 127, `["/etc/passwd"]`: 126, `["/bin"]`: 126} {
			r := d.Try("FROM busybox\nRUN "+cmd+"\n", "docker", "build", "-")
			if r.Code != code || !strings.Contains(r.Stderr, fmt.Sprintf("returned a non-zero code: %d", code)) {
				t.Errorf("%s: %d %s", cmd, r.Code, r.Stderr)
			}
		}
	})
	t.Run("a Dockerfile from outside the context", func(t *testing.T) {
		const file = "FROM busybox\nCOPY . /c\n"
		dir := buildContext(t, d, map[string]string{"keep": "x", "junk": "y"})
		out := filepath.Join(buildContext(t, d, map[string]string{"Df": file}), "Df")
		for _, cli := range []string{"docker", "skiff"} {
			for _, ignore := range []string{"", "junk\n"} {
				wantFiles := "junk keep"
				if ignore != "" { // changed on the way, and therefore there, as with docker
					wantFiles = ".dockerignore keep"
					if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(ignore), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				for _, img := range []string{d.Run(cli, "build", "-q", "-f", out, dir), d.RunIn(file, cli, "build", "-q", "-f", "-", dir)} {
					want(t, cli+ignore, strings.Join(strings.Fields(d.Run("docker", "run", "--rm", img, "ls", "-A", "/c")), " "), wantFiles)
				}
			}
			if err := os.Remove(filepath.Join(dir, ".dockerignore")); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("for another platform", func(t *testing.T) { buildForAnother(t, d) })
	t.Run("no network", func(t *testing.T) {
		dir := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN ip -o link | grep -c eth0 > /n || true\n"})
		img := d.Run("docker", "build", "-q", "--network", "none", dir)
		want(t, "interfaces", d.Run("docker", "run", "--rm", img, "cat", "/n"), "0")
		img = d.Run("docker", "build", "-q", dir)
		want(t, "interfaces by default", d.Run("docker", "run", "--rm", img, "cat", "/n"), "1")
	})
	t.Run("on a network of one's own", func(t *testing.T) { buildOnNetwork(t, d) })
	t.Run("a layer is on disk once", func(t *testing.T) {
		before := storedIn(d.DataRoot)
		dir := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=16 2>/dev/null\n"})
		d.Run("docker", "build", "-q", "-t", "big:1", dir)
		dir2 := buildContext(t, d, map[string]string{"Dockerfile": "FROM big:1\nRUN echo x > /small\n"})
		d.Run("docker", "build", "-q", "-t", "big:2", dir2)
		d.Run("docker", "run", "--rm", "big:2", "cat", "/small")
		if grown := storedIn(d.DataRoot) - before; grown < 16<<20 || grown > 20<<20 {
			t.Errorf("a 16 MB layer took %d bytes", grown)
		}
	})
	t.Run("cache", func(t *testing.T) {
		dir := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /id\n"})
		a, b := d.Run("docker", "build", "-q", dir), d.Run("docker", "build", "-q", dir)
		want(t, "cached", b, a)
		if c := d.Run("docker", "build", "-q", "--no-cache", dir); c == a {
			t.Error("--no-cache used the cache")
		}
		if df := d.Run("docker", "system", "df", "--format", "{{.Type}} {{.Size}}"); !strings.Contains(df, "Build Cache") {
			t.Errorf("df: %s", df)
		}
		d.Run("docker", "builder", "prune", "-af")
	})
	t.Run("push a built image, pull it back", func(t *testing.T) {
		d2, reg := withRegistry(t)
		dir := buildContext(t, d2, map[string]string{"Dockerfile": "FROM busybox\nRUN echo pushed > /f\nCMD cat /f\n"})
		id := d2.Run("docker", "build", "-q", "-t", reg+"/b:1", dir)
		d2.Run("docker", "push", reg+"/b:1")
		d2.Run("docker", "rmi", "-f", reg+"/b:1", "busybox")
		d2.Run("docker", "builder", "prune", "-af")
		d2.Run("docker", "pull", reg+"/b:1")
		want(t, "id", d2.Run("docker", "inspect", "-f", "{{.Id}}", reg+"/b:1"), id)
		want(t, "runs", d2.Run("docker", "run", "--rm", reg+"/b:1"), "pushed")
	})
	t.Run("survives the daemon", func(t *testing.T) {
		dir := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nRUN echo 1 > /f\n"})
		id := d.Run("docker", "build", "-q", "-t", "kept", dir)
		d.Kill()
		d.Launch()
		want(t, "image", d.Run("docker", "inspect", "-f", "{{.Id}}", "kept"), id)
		want(t, "runs", d.Run("docker", "run", "--rm", "kept", "cat", "/f"), "1")
		want(t, "still cached", d.Run("docker", "build", "-q", dir), id)
	})
	t.Run("leaves no images of its own", func(t *testing.T) {
		for i := range 3 {
			d.Try("", "docker", "build", "-q", buildContext(t, d, map[string]string{"Dockerfile": fmt.Sprintf("FROM busybox\nRUN exit %d\n", i+1)}))
		}
	})
}
