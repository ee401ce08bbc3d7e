package imageref

import (
	_ "crypto/sha256" // as the other parser needs them to know the algorithms
	_ "crypto/sha512"
	"strings"
	"testing"

	"github.com/distribution/reference"
)

var samples = []string{
	"busybox", "busybox:1.36", "library/busybox", "docker.io/busybox", "index.docker.io/a/b:c", "me/app", "localhost/app",
	"localhost:5000/app:t", "registry.example:5000/team/app:1.2", "[::1]:5000/a", "[fe80::1]/a/b", "[g]/a", "a@sha256:" + strings.Repeat("a", 64),
	"a:t@sha256:" + strings.Repeat("0", 64), "a@sha256:abc", "a@md5:" + strings.Repeat("a", 32), "a@sha512:" + strings.Repeat("b", 128),
	"a@sha256:" + strings.Repeat("A", 64), "", ":", "/", "a/", "/a", "a:", "a@", "A", "a/B", "Up/b", "HOST.x/b", "a..b", "a__b", "a___b", "a--b", "a-", "-a",
	"a._b", "a.b_c-d", "x.-y/b", "x.y:/b", "x.y:12a/b", strings.Repeat("a", 64), strings.Repeat("a", 256), "x.y/" + strings.Repeat("a", 255),
	"a:" + strings.Repeat("t", 128), "a:" + strings.Repeat("t", 129), "a:-t", "a:.t", "a:_t", "a b", "é", "a:é", "sha256:" + strings.Repeat("c", 64), "a:b:c", "a@b@c",
	"x:1/y", "docker.io/", "docker.io/library/", "docker.io/library/a/b", "a+b-sha256:x", "a@s+b.c:" + strings.Repeat("a", 40),
}

// same holds this parser against the one whose grammar it follows.
func same(t *testing.T, s string) {
	t.Helper()
	got, err := Parse(s)
	want, werr := reference.ParseNormalizedNamed(s)
	if registry, _ := splitDomain(s); !isDomain(registry) {
		// The reference takes such a registry, with an underscore, for a path: a name of
		// no registry, which nothing could pull.
		if err == nil {
			t.Fatalf("%q: %+v, though it names no registry", s, got)
		}
		return
	}
	if (err == nil) != (werr == nil) {
		t.Fatalf("%q: %+v, %v; the reference says %v, %v", s, got, err, want, werr)
	}
	if any, aerr := reference.ParseAnyReference(s); aerr == nil {
		if _, named := any.(reference.Named); named == IsID(s) {
			t.Fatalf("IsID(%q) = %v", s, IsID(s))
		}
	}
	if err != nil {
		if err.Error() != werr.Error() {
			t.Fatalf("%q: error %q, the reference says %q", s, err, werr)
		}
		return
	}
	for _, c := range []struct{ name, got, want string }{
		{"string", got.String(), want.String()},
		{"familiar", got.FamiliarString(), reference.FamiliarString(want)},
		{"name", got.Name(), want.Name()},
		{"domain", got.Domain, reference.Domain(want)},
		{"tagged", got.Tagged().String(), reference.TagNameOnly(want).String()},
	} {
		if c.got != c.want {
			t.Fatalf("%q: %s is %q, want %q", s, c.name, c.got, c.want)
		}
	}
	if got.NameOnly() != reference.IsNameOnly(want) {
		t.Fatalf("%q: NameOnly is %v", s, got.NameOnly())
	}
}

func TestSame(t *testing.T) {
	for _, s := range samples {
		same(t, s)
	}
}

func FuzzSame(f *testing.F) {
	for _, s := range samples {
		f.Add(s)
	}
	f.Fuzz(same)
}
