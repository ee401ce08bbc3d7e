package filter_test

import (
	"testing"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

func TestParse(t *testing.T) {
	for _, in := range []string{`{"name":{"web":true,"off":false}}`, `{"name":["web"]}`} {
		s, err := filter.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Exact("name", "web") || s.Exact("name", "off") || !s.Exact("other", "x") {
			t.Errorf("%s parsed as %v", in, s)
		}
	}
	if s, err := filter.Parse(""); s != nil || err != nil {
		t.Errorf("empty: %v %v", s, err)
	}
	if _, err := filter.Parse("{"); !errs.Is(err, errs.Invalid) {
		t.Errorf("bad JSON: %v", err)
	}
}

func TestMatching(t *testing.T) {
	s := filter.Set{"name": {"^we"}, "id": {"abc"}, "label": {"a", "b=2"}, "dangling": {"1"}}
	if !s.Fuzzy("name", "web") || s.Fuzzy("name", "dweb") {
		t.Error("fuzzy")
	}
	if !s.Prefix("id", "abcdef") || s.Prefix("id", "xabc") {
		t.Error("prefix")
	}
	if !s.Labels("label", map[string]string{"a": "x", "b": "2"}) || s.Labels("label", map[string]string{"a": "", "b": "3"}) {
		t.Error("labels")
	}
	if on, err := s.Bool("dangling", false); !on || err != nil {
		t.Error("bool")
	}
	if err := s.Check("name", "id", "label"); !errs.Is(err, errs.Invalid) {
		t.Errorf("unknown filter: %v", err)
	}
	if _, err := (filter.Set{"dangling": {"1", "0"}}).Bool("dangling", false); err == nil {
		t.Error("contradiction accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"name":{"web":true}}`)
	f.Add(`{"name":["web"]}`)
	f.Add(`{`)
	f.Fuzz(func(t *testing.T, s string) {
		set, err := filter.Parse(s)
		if err != nil && set != nil {
			t.Error("a set beside an error")
		}
	})
}
