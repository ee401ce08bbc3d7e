package oci_test

import (
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/internal/oci"
)

// FuzzReference reads names of images: what is taken is read alike again, and is
// no path out of anywhere.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"busybox", "a/b:tag", "example.com:5000/a@" + d1, "[::1]:5000/a:t@" + d1, "docker.io/library/sha256", "a/../b", "A", "a:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := oci.ParseNamed(s); err == nil {
			again, err := oci.ParseNamed(n.String())
			if err != nil || again.String() != n.String() {
				t.Errorf("%q is %s, which is %v, %v", s, n, again, err)
			}
			if strings.Contains(n.Name(), "..") && strings.Contains("/"+n.Name()+"/", "/../") || strings.ContainsAny(n.String(), "\x00\n \\") {
				t.Errorf("%q is taken as %s", s, n)
			}
			_ = oci.Object(n)
		}
		if n, err := oci.ParseTagged(s); err == nil && n.Tag() == "" {
			t.Errorf("%q has no tag", s)
		}
	})
}
