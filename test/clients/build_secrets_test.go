//go:build root

package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestBuildWithSession is "skiff build" with the flags that need a conversation
// with the builder, which skiff-build holds.
func TestBuildWithSession(t *testing.T) {
	harness.Bin(t, "skiff-build")
	d := harness.Start(t)
	d.Busybox()
	dir := filepath.Join(d.Dir, "ctx")
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	write("Dockerfile", `FROM busybox AS build
ARG WHO=nobody
RUN --mount=type=secret,id=key,required test "$(wc -c </run/secrets/key)" = 6 && echo "built for $WHO" > /made
RUN --mount=type=secret,id=token,env=TOKEN test ${#TOKEN} = 5
RUN ! test -s /run/secrets/key && ! grep -rs 's3cre[t]' /made /run /etc /tmp
FROM scratch AS files
COPY --from=build /made /made
FROM build
CMD ["cat", "/made"]
`)
	key := write("../key", "s3cret")
	secrets := []string{"--secret", "id=key,src=" + key, "--secret", "id=token,env=TOKEN"}
	build := func(args ...string) harness.Result {
		t.Helper()
		line := append([]string{"TOKEN=t0ken", harness.Bin(t, "skiff"), "build"}, append(append(secrets, args...), dir)...)
		return d.Try("", "env", line...)
	}

	r := build("--progress", "plain", "-t", "app", "--build-arg", "WHO=you")
	if r.Code != 0 || !strings.Contains(r.Stderr, "[build 2/4] RUN") || strings.Contains(r.Stderr, "s3cret") {
		t.Fatalf("%d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if got := d.Run("skiff", "run", "--rm", "app"); got != "built for you" {
		t.Errorf("printed %q", got)
	}
	for _, what := range []string{d.Run("skiff", "history", "--no-trunc", "app"), d.Run("skiff", "inspect", "app")} {
		if strings.Contains(what, "s3cret") || strings.Contains(what, "t0ken") {
			t.Errorf("a secret is told: %s", what)
		}
	}

	out := filepath.Join(d.Dir, "out")
	if r := build("--target", "files", "--output", "type=local,dest="+out); r.Code != 0 {
		t.Fatalf("--output: %s", r.Stderr)
	}
	if got, err := os.ReadFile(filepath.Join(out, "made")); err != nil || string(got) != "built for nobody\n" {
		t.Errorf("--output wrote %q, %v", got, err)
	}
	if r := build("-q", "--target", "files", "--output", "type=tar,dest="+out+".tar"); r.Code != 0 {
		t.Errorf("--output type=tar: %s", r.Stderr)
	}
	if got := d.Run("tar", "tf", out+".tar"); !strings.Contains(got, "made") {
		t.Errorf("the archive has %q", got)
	}

	ids, meta := filepath.Join(d.Dir, "iid"), filepath.Join(d.Dir, "meta")
	if r := build("-t", "app:2", "--iidfile", ids, "--metadata-file", meta); r.Code != 0 {
		t.Fatalf("--iidfile: %s", r.Stderr)
	}
	iid, err := os.ReadFile(ids)
	if want := d.Run("skiff", "inspect", "-f", "{{.Id}}", "app:2"); err != nil || string(iid) != want {
		t.Errorf("--iidfile has %q, want %q", iid, want)
	}
	if m, err := os.ReadFile(meta); err != nil || !strings.Contains(string(m), string(iid)) {
		t.Errorf("--metadata-file has %q", m)
	}

	secrets = nil
	if r := build("--progress", "plain", "--no-cache"); r.Code == 0 || !strings.Contains(r.Stderr, "key") {
		t.Errorf("without its secret: %d %s", r.Code, r.Stderr)
	}
	write("Dockerfile", "FROM busybox\nFOO bar\n")
	if r := build("--progress", "plain"); r.Code == 0 || !strings.Contains(r.Stderr, "unknown instruction: FOO") || !strings.Contains(r.Stderr, "2 | >>> FOO bar") {
		t.Errorf("a bad Dockerfile: %d %s", r.Code, r.Stderr)
	}
}
