package containers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// names are what the list calls a container.
func (w *world) names(id string) []string {
	w.t.Helper()
	all, err := w.List(ctx, ListOptions{All: true})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range all {
		if s.ID == id {
			return s.Names
		}
	}
	return nil
}

func linkedTo(links ...string) option {
	return withHost(func(h *container.HostConfig) { h.Links = links })
}

// A link is a name of the container that it leads to, whatever both are called
// by now.
func TestLinkNames(t *testing.T) {
	w := newWorld(t)
	db := w.run("db")
	w.run("web", linkedTo("db:store", "db"))
	check := func(want ...string) {
		t.Helper()
		if d := cmp.Diff(want, w.names(db)); d != "" {
			t.Error(d)
		}
		for _, n := range want {
			if in, err := w.Inspect(ctx, n, false); err != nil || in.ID != db {
				t.Errorf("%s: %v", n, err)
			}
		}
	}
	check("/db", "/web/db", "/web/store")
	for from, to := range map[string]string{"web": "app", "db": "base"} {
		if err := w.Rename(ctx, from, to); err != nil {
			t.Fatal(err)
		}
	}
	check("/app/db", "/app/store", "/base")
	other := w.run("db") // the name is another's now
	w.rebooted()
	w.Resume(ctx)
	check("/app/db", "/app/store", "/base")
	if in, err := w.Inspect(ctx, "app", false); err != nil || cmp.Diff([]string{"/base:/app/store", "/base:/app/db"}, in.HostConfig.Links) != "" {
		t.Errorf("%+v %v", in.HostConfig.Links, err)
	}
	for ref, kind := range map[string]errs.Kind{"base": errs.Internal, "/base": errs.Internal, "app/nosuch": errs.NotFound, "nosuch/db": errs.NotFound, "app/db/x": errs.NotFound} {
		if err := w.Remove(ctx, ref, RemoveOptions{Link: true}); !errs.Is(err, kind) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := w.Remove(ctx, "/app/store", RemoveOptions{Link: true}); err != nil {
		t.Fatal(err)
	}
	check("/app/db", "/base")
	// Who took the place of one that is gone takes its links.
	if err := w.Remove(ctx, "app/db", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/app/db", "/db"}, w.names(other)); d != "" {
		t.Error(d)
	}
	if err := w.Remove(ctx, "app", RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/db"}, w.names(other)); d != "" {
		t.Error(d)
	}
}

func TestLinksAreOfNetworks(t *testing.T) {
	w := newWorld(t)
	db := w.run("db")
	w.create("side", withNetwork("container:db"))
	w.create("host", withNetwork("host"))
	id := w.create("web", linkedTo("side:db"))
	if l := w.index.exact(id).record().Links; len(l) != 1 || l[0].ID != db {
		t.Errorf("%+v", l)
	}
	for _, ref := range []string{"host", "nosuch"} {
		if _, err := w.Create(ctx, request("", linkedTo(ref))); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
