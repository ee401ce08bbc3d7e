//go:build root

package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// TestBuildx builds with a current buildx as docker's builder: over the session
// of POST /build's successor, with secrets, outputs, caches and bake files.
func TestBuildx(t *testing.T) {
	if !harness.HaveDocker() {
		t.Skip("docker's command line is not here")
	}
	plugin := harness.Tool(t, "docker-buildx")
	d := harness.Start(t)
	usePlugins(t, d, map[string]string{"docker-buildx": plugin})
	d.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-", "img")
	dir := filepath.Join(d.Dir, "ctx")
	write(t, filepath.Join(dir, "Dockerfile"), `FROM img AS base
ARG WHO=nobody
RUN --mount=type=secret,id=key --mount=type=cache,target=/cache test -s /run/secrets/key && echo "for $WHO" > /made
FROM scratch AS files
COPY --from=base /made /
FROM base
COPY --from=other /extra /extra
`)
	write(t, filepath.Join(d.Dir, "other", "extra"), "extra")
	key := filepath.Join(d.Dir, "key")
	write(t, key, "s3cret")
	build := func(args ...string) string {
		t.Helper()
		return d.Run("docker", append([]string{
			"buildx", "build", "--progress", "plain", "--secret", "id=key,src=" + key,
			"--build-context", "other=" + filepath.Join(d.Dir, "other"),
		}, append(args, dir)...)...)
	}
	build("-t", "app", "--build-arg", "WHO=you", "--label", "a=b")
	want(t, "the image", d.Run("docker", "run", "--rm", "app", "cat", "/made", "/extra"), "for you\nextra")
	want(t, "its label", d.Run("docker", "inspect", "-f", "{{.Config.Labels.a}}", "app"), "b")

	build("--target", "files", "-o", "type=local,dest="+filepath.Join(d.Dir, "out"))
	if got, err := os.ReadFile(filepath.Join(d.Dir, "out", "made")); err != nil || string(got) != "for nobody\n" {
		t.Errorf("-o type=local wrote %q, %v", got, err)
	}
	build("--target", "files", "-o", "type=tar,dest="+filepath.Join(d.Dir, "out.tar"))
	build("-t", "app:oci", "-o", "type=docker,dest="+filepath.Join(d.Dir, "app.tar"))
	d.Run("docker", "rmi", "app")
	if got := d.Run("docker", "load", "-i", filepath.Join(d.Dir, "app.tar")); !strings.Contains(got, "app:oci") {
		t.Errorf("load said %q", got)
	}
	meta := filepath.Join(d.Dir, "meta.json")
	build("-t", "app", "--metadata-file", meta, "--iidfile", filepath.Join(d.Dir, "iid"))
	id := d.Run("docker", "inspect", "-f", "{{.Id}}", "app")
	if got, err := os.ReadFile(meta); err != nil || !strings.Contains(string(got), `"containerimage.digest": "`+id+`"`) {
		t.Errorf("--metadata-file has %q, %v", got, err)
	}

	write(t, filepath.Join(dir, "Dockerfile.cross"), "FROM --platform=$BUILDPLATFORM img AS make\nARG TARGETARCH\nRUN echo $TARGETARCH > /made\nFROM scratch\nCOPY --from=make /made /\n")
	build("-f", filepath.Join(dir, "Dockerfile.cross"), "--platform", "linux/s390x", "-t", "cross")
	want(t, "its platform", d.Run("docker", "image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "cross"), "linux/s390x")

	write(t, filepath.Join(dir, "docker-bake.json"), `{"group": {"default": {"targets": ["a", "b"]}}, "target": {
		"a": {"dockerfile-inline": "FROM img\nRUN echo a > /which\n", "tags": ["baked:a"]},
		"b": {"dockerfile-inline": "FROM one\nRUN echo b >> /which\n", "contexts": {"one": "target:a"}, "tags": ["baked:b"]}}}`)
	d.Run("sh", "-c", "cd "+dir+" && docker buildx bake --progress plain")
	want(t, "baked", d.Run("docker", "run", "--rm", "baked:b", "cat", "/which"), "a\nb")

	for _, x := range []struct{ line, expect string }{
		{"buildx ls", "default"},
		{"buildx inspect default", "running"},
		{"buildx du", "Reclaimable"},
		{"buildx history ls", "Completed"},
		{"buildx imagetools --help", "imagetools"},
		{"buildx prune -af", "Total"},
	} {
		if r := d.Try("", "docker", strings.Fields(x.line)...); r.Code != 0 || !strings.Contains(r.Stdout, x.expect) {
			t.Errorf("docker %s: exit code %d\n%s%s", x.line, r.Code, r.Stdout, r.Stderr)
		}
	}
	write(t, filepath.Join(dir, "Dockerfile"), "FROM img\nFOO bar\n")
	if r := d.Try("", "docker", "buildx", "build", dir); r.Code == 0 || !strings.Contains(r.Stderr, "unknown instruction: FOO") {
		t.Errorf("a bad Dockerfile: %d %s", r.Code, r.Stderr)
	}
}
