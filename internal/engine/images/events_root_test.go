//go:build root

package images_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

// TestEvents: what is told of images, as docker tells it: which object, by what
// name, and whether with its labels.
func TestEvents(t *testing.T) {
	e := start(t, "")
	a := e.importImage("base", map[string]string{"f": "a"}, "LABEL l=m")
	base, err := e.Resolve(e.ctx, "base", nil)
	if err != nil {
		t.Fatal(err)
	}
	commit := func(ref string) string {
		id, err := e.Commit(e.ctx, images.CommitSpec{Parent: base, Upper: t.TempDir(), Config: base.Config.Config, Ref: ref, Comment: ref})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	b, c := commit("child:x"), commit("")
	if err := e.Tag(e.ctx, "child:x", "other/child"); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := e.Save(e.ctx, []string{"base"}, nil, &archive); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(e.ctx, &archive, nil, &sink{}); err != nil {
		t.Fatal(err)
	}
	built, err := e.Resolve(e.ctx, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{nil, {"docker.io/library/built:1", "docker.io/library/built:2"}} {
		if err := e.Record(e.ctx, built.Target, names); err != nil {
			t.Fatal(err)
		}
	}
	e.remove("other/child")
	e.remove("child:x")
	if _, err := e.Import(e.ctx, rootfs(t, map[string]string{"g": ""}), images.ImportOptions{}, progress.Discard); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"tag A base:latest l=m", "import A A l=m",
		"create B B l=m", "tag B child:x l=m",
		"create C C l=m",
		"tag B other/child:latest l=m",
		"save A A l=m", "load A A l=m",
		"create C C l=m",
		"create C C l=m", "tag C built:1 l=m", "tag C built:2 l=m",
		"untag B other/child:latest", "untag B child:x", "delete B B",
		"import D D",
	}
	short := strings.NewReplacer(a, "A", b, "B", c, "C")
	var got []string
	for _, line := range e.told {
		got = append(got, short.Replace(line))
	}
	last := &got[len(got)-1]
	if f := strings.Fields(*last); len(f) == 3 && f[1] == f[2] {
		*last = "import D D"
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
