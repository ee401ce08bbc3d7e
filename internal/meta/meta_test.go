package meta_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/meta"
)

type row struct{ Name string }

func TestRowsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "meta.db")
	for round := range 2 {
		db, err := meta.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		tab, err := meta.NewTable[row](db, "rows")
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			for _, k := range []string{"b", "a", "gone"} {
				if err := tab.Put(k, row{k}); err != nil {
					t.Fatal(err)
				}
			}
			if err := tab.Delete("gone"); err != nil {
				t.Fatal(err)
			}
		}
		got, err := tab.All()
		if diff := cmp.Diff([]row{{"a"}, {"b"}}, got); err != nil || diff != "" {
			t.Errorf("round %d: %v %s", round, err, diff)
		}
		if _, err := tab.Get("gone"); !errs.Is(err, errs.NotFound) {
			t.Errorf("a deleted row: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOnlyOneProcessOpensIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	db, err := meta.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := meta.Open(path); !errs.Is(err, errs.Conflict) {
		t.Errorf("second open: %v", err)
	}
}
