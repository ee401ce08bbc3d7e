package volumes_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"

	"github.com/skiff-containers/skiff/internal/engine/volumes"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
	"github.com/skiff-containers/skiff/internal/meta"
	"github.com/skiff-containers/skiff/internal/sys/quota"
)

type events []string

func (e *events) Publish(_ apievents.Type, a apievents.Action, id string, _ map[string]string) {
	*e = append(*e, string(a)+" "+id)
}

func open(t *testing.T, dir string) (*volumes.Service, *events, func()) {
	t.Helper()
	return openWith(t, dir, volumes.Options{Quotas: new(quota.Projects)})
}

// openWith fills in what options leave out.
func openWith(t *testing.T, dir string, o volumes.Options) (*volumes.Service, *events, func()) {
	t.Helper()
	db, err := meta.Open(filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	tab, err := meta.NewTable[volumes.Record](db, "volumes")
	if err != nil {
		t.Fatal(err)
	}
	ev := &events{}
	o.Dir, o.Table, o.Events, o.Log = filepath.Join(dir, "volumes"), tab, ev, slog.New(slog.DiscardHandler)
	s, err := volumes.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s, ev, func() { s.Close(); _ = db.Close() }
}

func names(t *testing.T, s *volumes.Service, f filter.Set) string {
	t.Helper()
	l, err := s.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range l.Volumes {
		out = append(out, v.Name)
	}
	return strings.Join(out, " ")
}

func TestVolumesOutliveTheDaemon(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s, _, closeAll := open(t, dir)
	v, err := s.Create(ctx, &volume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.Mountpoint, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A directory without a row, as a crash between the two leaves it.
	if err := os.MkdirAll(filepath.Join(dir, "volumes", "half", "_data"), 0o755); err != nil {
		t.Fatal(err)
	}
	closeAll()
	s, _, closeAll = open(t, dir)
	defer closeAll()
	if got := names(t, s, nil); got != "data" {
		t.Errorf("volumes %q", got)
	}
	if _, err := os.Stat(filepath.Join(v.Mountpoint, "f")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "volumes", "half")); !os.IsNotExist(err) {
		t.Errorf("left over: %v", err)
	}
}

// TestCrashes sets up what a crash leaves at each step of a removal.
func TestCrashes(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	s, _, closeAll := open(t, dir)
	for _, n := range []string{"kept", "gone", "lost"} {
		v, err := s.Create(ctx, &volume.CreateRequest{Name: n})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v.Mountpoint, "f"), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "volumes")
	if err := s.Remove(ctx, "gone", false); err != nil {
		t.Fatal(err)
	}
	again, _ := s.Create(ctx, &volume.CreateRequest{Name: "gone"})
	s.Close()
	// As after the rename of a removal, before the row is deleted.
	trash := filepath.Join(root, volumes.TrashOf("gone")+"0123")
	if err := os.Rename(filepath.Dir(again.Mountpoint), trash); err != nil {
		t.Fatal(err)
	}
	closeAll()
	// The database is lost, but for what is done from now on.
	if err := os.MkdirAll(filepath.Join(root, strings.Repeat("ab", 32), "_data", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	s, _, closeAll = open(t, dir)
	if got, want := names(t, s, nil), strings.Repeat("ab", 32)+" kept lost"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	closeAll()
	if _, err := os.Stat(trash); !errorsIsNotExist(err) {
		t.Errorf("trash: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "meta.db")); err != nil {
		t.Fatal(err)
	}
	s, _, closeAll = open(t, dir)
	defer closeAll()
	if b, err := os.ReadFile(filepath.Join(root, "kept/_data/f")); err != nil || string(b) != "kept" {
		t.Errorf("a volume was lost with the database: %v", err)
	}
	if v, err := s.Acquire(ctx, "kept", "", nil, nil, "c"); err != nil || v.Anonymous {
		t.Errorf("%+v %v", v, err)
	}
	if v, err := s.Inspect(ctx, strings.Repeat("ab", 32)); err != nil || v.Labels == nil {
		t.Errorf("%+v %v", v, err)
	}
}

func TestUseAndRemoval(t *testing.T) {
	s, ev, closeAll := open(t, t.TempDir())
	defer closeAll()
	ctx := t.Context()
	named, err := s.Acquire(ctx, "nn", "", nil, nil, "c1")
	if err != nil || named.Anonymous {
		t.Fatalf("%+v %v", named, err)
	}
	anon, err := s.Acquire(ctx, "", "", nil, nil, "c1")
	if err != nil || !anon.Anonymous || len(anon.Name) != 64 {
		t.Fatalf("%+v %v", anon, err)
	}
	if err := s.Remove(ctx, "nn", true); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "volume is in use - [c1]") {
		t.Errorf("remove in use: %v", err)
	}
	if got := names(t, s, filter.Set{"dangling": {"true"}}); got != "" {
		t.Errorf("dangling: %q", got)
	}
	_ = s.Release(ctx, "nn", "c1")
	_ = s.Release(ctx, anon.Name, "c1")
	r, err := s.Prune(ctx, nil)
	if err != nil || !slices.Equal(r.VolumesDeleted, []string{anon.Name}) {
		t.Errorf("prune: %v %v", r, err)
	}
	if r, _ := s.Prune(ctx, filter.Set{"all": {"true"}, "label!": {"keep"}}); !slices.Equal(r.VolumesDeleted, []string{"nn"}) {
		t.Errorf("prune all: %v", r)
	}
	if err := s.Remove(ctx, "nn", false); !errs.Is(err, errs.NotFound) || err.Error() != "get nn: no such volume" {
		t.Errorf("remove of nothing: %v", err)
	}
	if err := s.Remove(ctx, "nn", true); err != nil {
		t.Errorf("forced remove of nothing: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(named.Path)); !errorsIsNotExist(err) {
		t.Errorf("files: %v", err)
	}
	if (*ev)[0] != "create nn" || !slices.Contains(*ev, "destroy nn") {
		t.Errorf("events: %v", *ev)
	}
}

func errorsIsNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func TestCreateRefusals(t *testing.T) {
	s, _, closeAll := open(t, t.TempDir())
	defer closeAll()
	for name, tc := range map[string]struct {
		r    volume.CreateRequest
		want errs.Kind
		text string
	}{
		"path as a name":  {volume.CreateRequest{Name: "../x"}, errs.Invalid, "includes invalid characters"},
		"one letter":      {volume.CreateRequest{Name: "x"}, errs.Invalid, "too short"},
		"unknown driver":  {volume.CreateRequest{Name: "ok", Driver: "nfs4"}, errs.NotFound, `plugin "nfs4" not found`},
		"unknown option":  {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"foo": "1"}}, errs.Invalid, `invalid option: "foo"`},
		"bad size":        {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"size": "big"}}, errs.Invalid, "create ok: invalid size: 'big'"},
		"size and mount":  {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"size": "1g", "type": "tmpfs", "device": "tmpfs"}}, errs.Unsupported, "option size"},
		"o alone":         {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"o": "ro"}}, errs.Invalid, `create ok: missing required option: "device"`},
		"tmpfs alone":     {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"type": "tmpfs"}}, errs.Invalid, `missing required option: "device"`},
		"cifs port":       {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"type": "cifs", "device": "//nas:445/x"}}, errs.Invalid, "port not allowed in CIFS device URL"},
		"device, no type": {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"device": "/x"}}, errs.Invalid, `missing required option: "type"`},
		"type, no device": {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"type": "nfs", "device": ""}}, errs.Invalid, "missing device"},
		"relative bind":   {volume.CreateRequest{Name: "ok", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": "x"}}, errs.Invalid, "absolute"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Create(t.Context(), &tc.r); !errs.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%v", err)
			}
			if got := names(t, s, nil); got != "" {
				t.Errorf("left: %s", got)
			}
		})
	}
}

// A daemon is killed between making or removing a container and its anonymous
// volumes: what nobody has any more goes at the next start, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s, _, closeAll := open(t, dir)
	ctx := t.Context()
	acquire := func(name, id string) string {
		t.Helper()
		v, err := s.Acquire(ctx, name, "", nil, nil, id)
		if err != nil {
			t.Fatal(err)
		}
		return v.Name
	}
	lost, alive, kept := acquire("", "gone"), acquire("", "there"), acquire("", "removed")
	acquire("named", "gone")
	if err := s.Keep(ctx, kept); err != nil {
		t.Fatal(err)
	}
	closeAll()

	s, _, closeAll = open(t, dir)
	defer closeAll()
	acquire(alive, "there")
	if err := s.Sweep(ctx, func(id string) bool { return id == "there" }); err != nil {
		t.Fatal(err)
	}
	want := []string{alive, kept, "named"}
	slices.Sort(want)
	if got := names(t, s, nil); got != strings.Join(want, " ") {
		t.Errorf("%s and not %s should go: %s are left", lost, want, got)
	}
}
