package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	apievents "github.com/moby/moby/api/types/events"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

func read(t *testing.T, r *Reader, n int) []apievents.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out []apievents.Message
	for range n {
		m, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("after %d events: %v", len(out), err)
		}
		out = append(out, m)
	}
	return out
}

func subscribe(t *testing.T, b *Bus, q Query) *Reader {
	t.Helper()
	r, err := b.Subscribe(q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReadersSeeEverythingInOrder(t *testing.T) {
	b := New()
	const n, readers = 2000, 4
	done := make(chan error, readers)
	for range readers {
		r := subscribe(t, b, Query{})
		go func() {
			last := int64(0)
			for i := range n {
				m, err := r.Next(context.Background())
				if err == nil && (m.Actor.ID != fmt.Sprint(i) || m.TimeNano <= last) {
					err = fmt.Errorf("event %d: %+v after %d", i, m, last)
				}
				if err != nil {
					done <- err
					return
				}
				last = m.TimeNano
			}
			done <- nil
		}()
	}
	for i := range n { // fewer than the ring: nobody may lag
		b.Publish(apievents.ContainerEventType, apievents.ActionStart, fmt.Sprint(i), nil)
	}
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestTimeIsStrictlyIncreasing(t *testing.T) {
	b := New()
	b.now = func() time.Time { return time.Unix(100, 0) } // a clock that stands still
	r := subscribe(t, b, Query{})
	for range 3 {
		b.Publish(apievents.VolumeEventType, apievents.ActionCreate, "v", nil)
	}
	got := read(t, r, 3)
	if got[0].TimeNano != 100e9 || got[1].TimeNano != 100e9+1 || got[2].TimeNano != 100e9+2 {
		t.Errorf("times %v %v %v", got[0].TimeNano, got[1].TimeNano, got[2].TimeNano)
	}
	if got[0].Time != 100 || got[0].Scope != "local" {
		t.Errorf("event %+v", got[0])
	}
}

func TestSinceAndUntil(t *testing.T) {
	b := New()
	now := time.Unix(1000, 0)
	b.now = func() time.Time { return now }
	for i := range 10 {
		now = time.Unix(1000+int64(i), 0)
		b.Publish(apievents.ImageEventType, apievents.ActionTag, fmt.Sprint(i), nil)
	}
	now = time.Unix(2000, 0)
	for name, tc := range map[string]struct {
		since, until int64
		want         string
	}{
		"both are inclusive":           {1003, 1005, "345"},
		"until alone replays all":      {0, 1002, "012"},
		"since before the first event": {1, 1001, "01"},
		"nothing in between":           {1500, 1600, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var q Query
			if tc.since != 0 {
				q.Since = time.Unix(tc.since, 0)
			}
			q.Until = time.Unix(tc.until, 0)
			var got strings.Builder
			err := b.Each(t.Context(), q, func(m apievents.Message) error {
				got.WriteString(m.Actor.ID)
				return nil
			})
			if err != nil || got.String() != tc.want {
				t.Errorf("got %q, %v; want %q", got.String(), err, tc.want)
			}
		})
	}
	if _, err := b.Subscribe(Query{Since: time.Unix(5, 0), Until: time.Unix(4, 0)}); !errs.Is(err, errs.Invalid) {
		t.Errorf("since after until: %v", err)
	}
}

func TestUntilEndsAWaitingReader(t *testing.T) {
	b := New()
	r := subscribe(t, b, Query{Until: time.Now().Add(5 * time.Millisecond)})
	if _, err := r.Next(t.Context()); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}

// TestUntilFarAhead has ends that no duration and no count of nanoseconds reaches.
func TestUntilFarAhead(t *testing.T) {
	for _, until := range []time.Time{time.Unix(99_999_999_999, 0), time.Unix(1<<40, 0), time.Unix(13_000_000_000, 0)} {
		b := New()
		b.Publish("container", "start", "c", nil)
		r := subscribe(t, b, Query{Until: until})
		if m, err := r.Next(t.Context()); err != nil || m.Actor.ID != "c" {
			t.Errorf("until %v: %v, %v", until, m, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := r.wait(ctx, make(chan struct{})); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("until %v: it does not wait: %v", until, err)
		}
		cancel()
		if r := subscribe(t, b, Query{Since: until}); r.at != b.next {
			t.Errorf("since %v: has an event of before", until)
		}
	}
}

func TestContextEndsAWaitingReader(t *testing.T) {
	b := New()
	ctx, cancel := context.WithCancel(t.Context())
	r := subscribe(t, b, Query{})
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSlowReadersAreDropped(t *testing.T) {
	b := New()
	r := subscribe(t, b, Query{})
	for range maxEvents + 1 {
		b.Publish(apievents.ContainerEventType, apievents.ActionDie, "x", nil)
	}
	if _, err := r.Next(t.Context()); !errors.Is(err, ErrLagged) {
		t.Errorf("got %v, want ErrLagged", err)
	}
	if len(b.ring) != maxEvents {
		t.Errorf("ring of %d", len(b.ring))
	}
}

func TestMemoryIsBounded(t *testing.T) {
	b := New()
	attrs := map[string]string{"label": strings.Repeat("x", 1<<20)}
	for range 50 {
		b.Publish(apievents.ContainerEventType, apievents.ActionCreate, "x", attrs)
	}
	if kept := b.next - b.first; kept > 8 || kept == 0 {
		t.Errorf("%d events of 1 MB kept", kept)
	}
	r := subscribe(t, b, Query{Since: time.Unix(1, 0)})
	read(t, r, int(b.next-b.first))
	sum := 0
	for s := b.first; s < b.next; s++ {
		sum += weight(b.ring[s%uint64(len(b.ring))])
	}
	if sum != b.bytes {
		t.Errorf("accounts %d bytes, holds %d", b.bytes, sum)
	}
}

func TestAttributesAreCopied(t *testing.T) {
	b := New()
	r := subscribe(t, b, Query{})
	attrs := map[string]string{"name": "web"}
	b.Publish(apievents.ContainerEventType, apievents.ActionCreate, "x", attrs)
	attrs["name"] = "changed"
	if m := read(t, r, 1)[0]; m.Actor.Attributes["name"] != "web" {
		t.Errorf("event changed after the fact: %v", m)
	}
}

func TestFilters(t *testing.T) {
	web := apievents.Message{
		Type: apievents.ContainerEventType, Action: apievents.ActionStart, Scope: "local",
		Actor: apievents.Actor{ID: "abc123", Attributes: map[string]string{"name": "web", "image": "nginx:1", "tier": "front"}},
	}
	exec := web
	exec.Action = WithDetail(apievents.ActionExecCreate, "sh -c 'a: b'")
	img := apievents.Message{
		Type: apievents.ImageEventType, Action: apievents.ActionPull, Scope: "local",
		Actor: apievents.Actor{ID: "nginx:1", Attributes: map[string]string{"name": "nginx"}},
	}
	net := apievents.Message{
		Type: apievents.NetworkEventType, Action: apievents.ActionConnect, Scope: "local",
		Actor: apievents.Actor{ID: "ff00", Attributes: map[string]string{"name": "web", "type": "bridge"}},
	}
	for name, tc := range map[string]struct {
		f    filter.Set
		e    apievents.Message
		want bool
	}{
		"none":                         {nil, web, true},
		"type":                         {filter.Set{"type": {"container"}}, web, true},
		"other type":                   {filter.Set{"type": {"image", "volume"}}, web, false},
		"event":                        {filter.Set{"event": {"stop", "start"}}, web, true},
		"container by name":            {filter.Set{"container": {"web"}}, web, true},
		"container by id prefix":       {filter.Set{"container": {"abc"}}, web, true},
		"another container":            {filter.Set{"container": {"db"}}, web, false},
		"a network of the same name":   {filter.Set{"container": {"web"}}, net, false},
		"network by name":              {filter.Set{"network": {"web"}}, net, true},
		"image of a container":         {filter.Set{"image": {"nginx"}}, web, true},
		"image of a container, tagged": {filter.Set{"image": {"nginx:1"}}, web, true},
		"another tag":                  {filter.Set{"image": {"nginx:2"}}, web, false},
		"image event":                  {filter.Set{"image": {"nginx"}}, img, true},
		"label":                        {filter.Set{"label": {"tier"}}, web, true},
		"label with value":             {filter.Set{"label": {"tier=back"}}, web, false},
		"two labels, one missing":      {filter.Set{"label": {"tier", "zone"}}, web, false},
		"exec_create without detail":   {filter.Set{"event": {"exec_create"}}, exec, true},
		"exec_create with its detail":  {filter.Set{"event": {"exec_create: sh -c 'a: b'"}}, exec, true},
		"exec_start is not it":         {filter.Set{"event": {"exec_start"}}, exec, false},
		"scope":                        {filter.Set{"scope": {"swarm"}}, web, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := newMatcher(tc.f)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.include(tc.e); got != tc.want {
				t.Errorf("%v on %+v: %v", tc.f, tc.e, got)
			}
		})
	}
	if _, err := New().Subscribe(Query{Filters: filter.Set{"name": {"x"}}}); !errs.Is(err, errs.Invalid) {
		t.Errorf("unknown filter: %v", err)
	}
}

func BenchmarkPublish(b *testing.B) {
	bus := New()
	attrs := map[string]string{"name": "web", "image": "nginx"}
	b.ReportAllocs()
	for b.Loop() {
		bus.Publish(apievents.ContainerEventType, apievents.ActionStart, "abc", attrs)
	}
}

// History that is forgotten while it is read ends nobody; what is new does.
func TestHistoryMayBeForgotten(t *testing.T) {
	b := New()
	publish := func(n int) {
		for range n {
			b.Publish(apievents.ContainerEventType, apievents.ActionDie, "x", nil)
		}
	}
	publish(maxEvents)
	r := subscribe(t, b, Query{Since: time.Unix(1, 0)})
	publish(maxEvents)
	for i := range maxEvents {
		if _, err := r.Next(t.Context()); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	r = subscribe(t, b, Query{Since: time.Unix(1, 0)})
	publish(maxEvents + 1)
	if _, err := r.Next(t.Context()); !errors.Is(err, ErrLagged) {
		t.Errorf("got %v, want ErrLagged", err)
	}
}
