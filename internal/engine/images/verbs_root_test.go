//go:build root

package images_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/kit/progress"
)

func (e *engine) list(f filter.Set) (tags []string) {
	e.t.Helper()
	out, err := e.List(e.ctx, images.ListOptions{Filters: f, SharedSize: true})
	if err != nil {
		e.t.Fatal(err)
	}
	for _, s := range out {
		if len(s.RepoTags) == 0 {
			tags = append(tags, "<none>")
		}
		tags = append(tags, s.RepoTags...)
	}
	slices.Sort(tags)
	return tags
}

func TestNamesComeAndGo(t *testing.T) {
	e := start(t, "")
	a := e.importImage("app:1", map[string]string{"f": "a"}, "LABEL who=me")
	if err := e.Tag(e.ctx, "app:1", "app:2"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"app:1", "app:2"}, e.list(nil)); diff != "" {
		t.Error(diff)
	}
	if _, err := e.Remove(e.ctx, a, images.RemoveOptions{}); !errs.Is(err, errs.Conflict) {
		t.Errorf("removed by id in spite of two tags: %v", err)
	}
	if _, err := e.Remove(e.ctx, a, images.RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	e.empty()

	a = e.importImage("app:1", map[string]string{"f": "a"}, "LABEL who=me")
	e.importImage("app:1", map[string]string{"f": "b"})
	if diff := cmp.Diff([]string{"<none>", "app:1"}, e.list(nil)); diff != "" {
		t.Error(diff)
	}
	for name, tc := range map[string]struct {
		f    filter.Set
		want []string
	}{
		"dangling":     {filter.Set{"dangling": {"true"}}, []string{"<none>"}},
		"not dangling": {filter.Set{"dangling": {"false"}}, []string{"app:1"}},
		"label":        {filter.Set{"label": {"who=me"}}, []string{"<none>"}},
		"reference":    {filter.Set{"reference": {"ap*"}}, []string{"app:1"}},
		"since":        {filter.Set{"since": {a}}, []string{"app:1"}},
		"before":       {filter.Set{"before": {"app:1"}}, []string{"<none>"}},
		"until":        {filter.Set{"until": {"1h"}}, nil},
	} {
		if diff := cmp.Diff(tc.want, e.list(tc.f)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := e.List(e.ctx, images.ListOptions{Filters: filter.Set{"bogus": {"1"}}}); !errs.Is(err, errs.Invalid) {
		t.Errorf("unknown filter: %v", err)
	}
	// The old one gets a name again.
	if err := e.Tag(e.ctx, a[7:19], "old"); err != nil {
		t.Fatal(err)
	}
	if got := e.list(filter.Set{"dangling": {"true"}}); len(got) != 0 {
		t.Errorf("dangling with a name: %v", got)
	}
	out := e.remove("old")
	if out[0] != (image.DeleteResponse{Untagged: "old:latest"}) || out[1] != (image.DeleteResponse{Deleted: a}) || len(out) != 3 {
		t.Errorf("%v", out)
	}
	e.importImage("app:1", map[string]string{"f": "c"})
	rep, err := e.Prune(e.ctx, nil)
	if err != nil || len(rep.ImagesDeleted) == 0 || rep.SpaceReclaimed == 0 {
		t.Errorf("%+v %v", rep, err)
	}
	if rep, err = e.Prune(e.ctx, filter.Set{"dangling": {"false"}}); err != nil || len(rep.ImagesDeleted) == 0 {
		t.Errorf("%+v %v", rep, err)
	}
	e.empty()
}

func TestErrorsAreDockers(t *testing.T) {
	e := start(t, "")
	id := e.importImage("app:1", map[string]string{"f": "a"})
	for name, tc := range map[string]struct {
		f    func() error
		kind errs.Kind
		text string
	}{
		"unknown name": {func() error { _, err := e.Resolve(e.ctx, "nope", nil); return err }, errs.NotFound, "No such image: nope:latest"},
		"unknown id": {
			func() error { _, err := e.Resolve(e.ctx, "sha256:"+strings.Repeat("0", 64), nil); return err },
			errs.NotFound, "No such image: sha256:" + strings.Repeat("0", 64),
		},
		"bad name":      {func() error { _, err := e.Resolve(e.ctx, "a/UPPER", nil); return err }, errs.Invalid, "invalid reference format: repository name (a/UPPER) must be lowercase"},
		"bad tag":       {func() error { return e.Tag(e.ctx, "app:1", "x:-bad") }, errs.Invalid, "invalid reference format: x:-bad"},
		"tag by digest": {func() error { return e.Tag(e.ctx, "app:1", "x@sha256:"+strings.Repeat("0", 64)) }, errs.Invalid, "refusing to create a tag with a digest reference"},
		"push unknown":  {func() error { return e.Push(e.ctx, images.PushOptions{Ref: "nope"}, progress.Discard) }, errs.NotFound, "An image does not exist locally with the tag: nope"},
		"bad change": {func() error {
			_, err := e.Import(e.ctx, rootfs(t, nil), images.ImportOptions{Changes: []string{"RUN x"}}, progress.Discard)
			return err
		}, errs.Invalid, `RUN is not a valid change command`},
		"load no archive": {func() error { return e.Load(e.ctx, rootfs(t, map[string]string{"a": "b"}), nil, progress.Discard) }, errs.Invalid, ""},
		"load garbage": {func() error {
			return e.Load(e.ctx, strings.NewReader(strings.Repeat("x", 2000)), nil, progress.Discard)
		}, errs.Invalid, ""},
		"refused registry": {func() error { return e.Pull(e.ctx, images.PullOptions{Ref: "127.0.0.1:1/x"}, progress.Discard) }, errs.Unavailable, `Get "https://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.f()
			if !errs.Is(err, tc.kind) {
				t.Errorf("kind %v of %v", errs.KindOf(err), err)
			}
			if tc.text != "" && (err == nil || err.Error() != tc.text) {
				t.Errorf("got  %v\nwant %s", err, tc.text)
			}
		})
	}
	short := id[7:19]
	running := false
	e.inUse = func(string) []images.ContainerRef {
		return []images.ContainerRef{{ID: strings.Repeat("c", 64), Running: running}}
	}
	for _, tc := range []struct {
		ref     string
		force   bool
		running bool
		text    string
	}{
		{"app:1", false, false, `conflict: unable to remove repository reference "app:1" (must force) - container cccccccccccc is using its referenced image ` + short},
		{id, false, false, "conflict: unable to delete " + short + " (must be forced) - image is being used by stopped container cccccccccccc"},
		{short, true, true, "conflict: unable to delete " + short + " (cannot be forced) - image is being used by running container cccccccccccc"},
	} {
		running = tc.running
		if _, err := e.Remove(e.ctx, tc.ref, images.RemoveOptions{Force: tc.force}); err == nil || err.Error() != tc.text || !errs.Is(err, errs.Conflict) {
			t.Errorf("got  %v\nwant %s", err, tc.text)
		}
	}
	if err := e.Tag(e.ctx, "app:1", "elsewhere"); err != nil {
		t.Fatal(err)
	}
	e.inUse = nil
	_, err := e.Remove(e.ctx, id, images.RemoveOptions{})
	if want := "conflict: unable to delete " + short + " (must be forced) - image is referenced in multiple repositories"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// TestPruneNames: of an image in use, the names go that no container was made by,
// but one stays.
func TestPruneNames(t *testing.T) {
	for name, tc := range map[string]struct {
		by   []string
		stay string
	}{
		"its id":               {[]string{"ID"}, "app:latest"},
		"a part of its id":     {[]string{"SHORT"}, "app:latest"},
		"one name":             {[]string{"app"}, "app:latest"},
		"a name that is gone":  {[]string{"other:1"}, "app:latest"},
		"names of two of them": {[]string{"app:1", "b/app:x", "ID"}, "app:1 b/app:x"},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, "")
			id := e.importImage("app", map[string]string{"f": "a"})
			for _, n := range []string{"app:1", "app:0", "b/app:x"} {
				if err := e.Tag(e.ctx, id, n); err != nil {
					t.Fatal(err)
				}
			}
			by := strings.NewReplacer("ID", id, "SHORT", id[7:19])
			e.inUse = func(string) []images.ContainerRef {
				var out []images.ContainerRef
				for _, n := range tc.by {
					out = append(out, images.ContainerRef{ID: "c", Images: []string{by.Replace(n)}})
				}
				return out
			}
			for range 2 { // the second finds nothing
				if _, err := e.Prune(e.ctx, filter.Set{"dangling": {"false"}}); err != nil {
					t.Fatal(err)
				}
				in, err := e.Inspect(e.ctx, id, nil, false)
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(in.RepoTags)
				if got := strings.Join(in.RepoTags, " "); got != tc.stay {
					t.Errorf("%q, want %q", got, tc.stay)
				}
			}
			if rep, err := e.Prune(e.ctx, filter.Set{"dangling": {"false"}}); err != nil || len(rep.ImagesDeleted) != 0 || rep.SpaceReclaimed != 0 {
				t.Errorf("%+v %v", rep, err)
			}
		})
	}
}

func TestForcedFromUnderAContainer(t *testing.T) {
	e := start(t, "")
	id := e.importImage("app", map[string]string{"f": "a"})
	img, err := e.Resolve(e.ctx, "app", nil)
	if err != nil {
		t.Fatal(err)
	}
	dirs, _ := e.Lowers(e.ctx, img)
	running := true
	e.inUse = func(string) []images.ContainerRef { return []images.ContainerRef{{ID: "c1", Running: running}} }
	if out, err := e.Remove(e.ctx, "app", images.RemoveOptions{Force: true}); err != nil || len(out) != 1 {
		t.Errorf("under a running container the name goes, the image stays: %v %v", out, err)
	}
	if err := e.Tag(e.ctx, id, "app"); err != nil {
		t.Fatal(err)
	}
	running = false
	if out, err := e.Remove(e.ctx, "app", images.RemoveOptions{Force: true}); err != nil || len(out) != 3 {
		t.Errorf("%v %v", out, err)
	}
	if err := e.Collect(e.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dirs[0] + "/f"); err != nil {
		t.Error("the container lost its layers")
	}
	if err := e.Unpin(e.ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	e.empty()
}

func TestCommit(t *testing.T) {
	e := start(t, "")
	e.importImage("base", map[string]string{"f": "a", "gone": "x"}, "ENV A=b")
	base, _ := e.Resolve(e.ctx, "base", nil)
	upper := t.TempDir()
	_ = os.WriteFile(upper+"/new", []byte("n"), 0o600)
	conf := base.Config.Config
	conf.Cmd = []string{"new"}
	id, err := e.Commit(e.ctx, images.CommitSpec{Parent: base, Upper: upper, Config: conf, Author: "me", Comment: "c", Ref: "child:x"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Inspect(e.ctx, "child:x", nil, true)
	if err != nil || got.ID != id || got.Author != "me" || got.Comment != "c" || len(got.RootFS.Layers) != 2 || got.Config.Cmd[0] != "new" || got.Config.Env[0] != "A=b" {
		t.Errorf("%+v %v", got, err)
	}
	if e.read("child:x", "new") != "n" || e.read("child:x", "f") != "a" {
		t.Error("content")
	}
	h, err := e.History(e.ctx, "child:x", nil)
	if err != nil || len(h) != 2 || h[0].ID != id || h[1].ID != "<missing>" || h[0].Tags[0] != "child:x" || h[0].Size != 1 {
		t.Errorf("%+v %v", h, err)
	}
	if d, err := e.Descendants(e.ctx, "base"); err != nil || len(d) != 2 {
		t.Errorf("%v %v", d, err)
	}
	// The base goes; what is made from it keeps its layers.
	e.remove("base")
	if err := e.Collect(e.ctx); err != nil {
		t.Fatal(err)
	}
	if e.read("child:x", "f") != "a" {
		t.Error("the base's layer is gone")
	}
	e.remove("child:x")
	e.empty()
}

func TestSaveAndLoad(t *testing.T) {
	e := start(t, "")
	a := e.importImage("app:1", map[string]string{"f": "a"})
	base, _ := e.Resolve(e.ctx, "app:1", nil)
	b, err := e.Commit(e.ctx, images.CommitSpec{Parent: base, Upper: t.TempDir(), Ref: "app:2"})
	if err != nil {
		t.Fatal(err)
	}
	var byName, byID bytes.Buffer
	if err := e.Save(e.ctx, []string{"app", "app:1"}, nil, &byName); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(e.ctx, []string{a}, nil, &byID); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(e.ctx, []string{"nope"}, nil, &bytes.Buffer{}); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = zw.Write(byName.Bytes())
	_ = zw.Close()

	e2 := start(t, "")
	s := &sink{}
	if err := e2.Load(e2.ctx, &zipped, nil, s); err != nil {
		t.Fatal(err)
	}
	s.has(t, "Loaded image: app:1")
	s.has(t, "Loaded image: app:2")
	for ref, id := range map[string]string{"app:1": a, "app:2": b} {
		if img, err := e2.Resolve(e2.ctx, ref, nil); err != nil || img.ID.String() != id {
			t.Errorf("%s is %v, %v", ref, img, err)
		}
	}
	if e2.read("app:2", "f") != "a" {
		t.Error("content")
	}
	// What was loaded saves to the same bytes: nothing was lost on the way.
	var again bytes.Buffer
	if err := e2.Save(e2.ctx, []string{"app", "app:1"}, nil, &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Bytes(), byName.Bytes()) {
		t.Error("save of a load differs")
	}
	e2.remove("app:1")
	e2.remove("app:2")
	e2.empty()

	s = &sink{}
	if err := e2.Load(e2.ctx, &byID, nil, s); err != nil {
		t.Fatal(err)
	}
	s.has(t, "Loaded image ID: "+a)
	e2.remove(a)
	e2.empty()
	cut := byName.Bytes()[:byName.Len()/2]
	if err := e2.Load(e2.ctx, bytes.NewReader(cut), nil, progress.Discard); !errs.Is(err, errs.Invalid) {
		t.Errorf("cut archive: %v", err)
	}
	e2.empty()
}

// TestConfirmWaitsForARemoval: a container that found an image while it was being
// removed must hear that it is gone, and no removal may miss who was confirmed.
func TestConfirmWaitsForARemoval(t *testing.T) {
	e := start(t, "")
	id := digest.Digest(e.importImage("app:1", map[string]string{"f": "x"}))
	img, err := e.Resolve(e.ctx, "app:1", nil)
	if err != nil || img.ID != id {
		t.Fatalf("%v, %v", img, err)
	}
	if err := e.Confirm(e.ctx, "app:1", nil, id); err != nil {
		t.Fatal(err)
	}
	confirmed := make(chan error, 1)
	e.inUse = func(string) []images.ContainerRef { // none, at this moment
		e.inUse = nil
		go func() { confirmed <- e.Confirm(e.ctx, "app:1", nil, id) }()
		select {
		case err := <-confirmed:
			t.Errorf("confirmed while it is removed: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	}
	if _, err := e.Remove(e.ctx, "app:1", images.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-confirmed; !errs.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "No such image: app:1") {
		t.Errorf("after the removal: %v", err)
	}
	// A name that leads elsewhere by now takes nothing from the image.
	id = digest.Digest(e.importImage("app:2", map[string]string{"f": "y"}))
	other := e.importImage("app:3", map[string]string{"f": "z"})
	if err := e.Tag(e.ctx, other, "app:2"); err != nil {
		t.Fatal(err)
	}
	if err := e.Confirm(e.ctx, "app:2", nil, id); err != nil {
		t.Errorf("a name that moved on: %v", err)
	}
}
