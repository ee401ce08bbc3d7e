//go:build root

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

// foreignProgram is the beginning of an ELF file of an architecture that no
// machine of ours has: the kernel does not start it.
var foreignProgram = "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\x16\x00\x01\x00\x00\x00" + strings.Repeat("\x00", 200)

// buildForAnother builds for s390x: no program of it is needed where no step
// runs one.
func buildForAnother(t *testing.T, d *harness.Daemon) {
	inspect := func(img string) string {
		t.Helper()
		return d.Run("docker", "image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", img)
	}
	scratch := "FROM scratch\nCOPY prog /prog\nCMD [\"/prog\"]\n"
	dir := buildContext(t, d, map[string]string{"Dockerfile": scratch, "prog": foreignProgram})
	if err := os.Chmod(filepath.Join(dir, "prog"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.Run("docker", "build", "--platform", "linux/s390x", "-t", "foreign", dir)
	want(t, "platform", inspect("foreign"), "linux/s390x")
	warning := "The requested image's platform (linux/s390x) does not match the detected host platform"
	r := d.Try("", "docker", "run", "--rm", "foreign")
	if r.Code == 0 || !strings.Contains(r.Stderr, "exec format error") || !strings.Contains(r.Stderr, warning) {
		t.Errorf("run: %d %s", r.Code, r.Stderr)
	}
	if r := d.Try("", "docker", "run", "--rm", "--platform", "linux/s390x", "foreign"); strings.Contains(r.Stderr, warning) {
		t.Errorf("a platform that was asked for: %s", r.Stderr)
	}

	based := buildContext(t, d, map[string]string{"Dockerfile": "FROM foreign\nRUN [\"/prog\"]\n"})
	r = d.Try("", "docker", "build", "--platform", "linux/s390x", based)
	if r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "exec format error") {
		t.Errorf("a step of the other platform: %d %s%s", r.Code, r.Stdout, r.Stderr)
	}

	cross := buildContext(t, d, map[string]string{"Dockerfile": "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN echo for $TARGETARCH > /made\nFROM scratch\nCOPY --from=make /made /\n"})
	d.Run("docker", "build", "--platform", "linux/s390x", "-t", "cross", cross)
	want(t, "platform of a cross build", inspect("cross"), "linux/s390x")
	made := d.Run("sh", "-c", "docker create --name cross cross x >/dev/null && docker cp cross:/made - | tar xO; docker rm cross >/dev/null")
	want(t, "a file of a cross build", made, "for s390x")

	// An image that is here for this machine only is not that of the other one.
	here := buildContext(t, d, map[string]string{"Dockerfile": "FROM busybox\nLABEL a=b\n"})
	if r := d.Try("", "docker", "build", "--platform", "linux/s390x", here); r.Code == 0 {
		t.Errorf("busybox of this machine stands for that of another: %s", r.Stdout)
	}
	want(t, "busybox after it", inspect("busybox"), d.Run("docker", "version", "-f", "{{.Server.Os}}/{{.Server.Arch}}"))

	// By BuildKit's own API.
	if _, err := os.Stat(harness.Bin(t, "skiff-build")); err != nil {
		return
	}
	skiff := harness.Bin(t, "skiff")
	build := func(platforms, tag, dir string) {
		t.Helper()
		r := d.Try("", "env", "X=1", skiff, "build", "--secret", "id=x,env=X", "--platform", platforms, "-t", tag, dir)
		if r.Code != 0 {
			t.Fatalf("skiff build: %s", r.Stderr)
		}
	}
	build("linux/s390x", "foreign:2", dir)
	want(t, "platform over gRPC", inspect("foreign:2"), "linux/s390x")
	build("linux/s390x,linux/mips64le", "both", cross)
	for _, arch := range []string{"s390x", "mips64le"} {
		made := d.Run("sh", "-c", "id=$("+skiff+" create --platform linux/"+arch+" both x) && docker cp $id:/made - | tar xO; docker rm $id >/dev/null")
		want(t, "a file of an image for several platforms", made, "for "+arch)
	}
}
