//go:build root

package images_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/registryd/registrytest"
)

// stopped is a client that reads no more once it has seen a status: counters are
// dropped, whoever tells it anything else waits.
type stopped struct {
	at    string
	once  sync.Once
	stuck chan struct{}
	until context.Context //nolint:containedctx // of the test
}

func (s *stopped) Emit(e progress.Event) {
	if e.Current < e.Total || e.Status != s.at {
		return
	}
	s.once.Do(func() { close(s.stuck) })
	<-s.until.Done()
}

// TestAStoppedClientHoldsUpNobody: a client that does not read, as one that was
// stopped by Ctrl-Z, must not keep the slots that all verbs share.
func TestAStoppedClientHoldsUpNobody(t *testing.T) {
	reg := registrytest.Start(t)
	src := start(t, "")
	for _, name := range []string{"/one", "/two"} {
		src.importImage(reg+name, map[string]string{"f": name})
		src.push(reg + name)
	}
	src.importImage(reg+"/three", map[string]string{"f": "three"})
	src.importImage(reg+"/four", map[string]string{"f": "four"})
	src.importImage(reg+"/five", map[string]string{"f": "five"})
	for _, tc := range []struct {
		status string
		verb   func(e *engine, ctx context.Context, p progress.Sink) error
		after  func(e *engine) error
	}{
		{"Downloading", pullOf(reg + "/one"), func(e *engine) error { _, err := e.pull(reg + "/two"); return err }},
		{"Download complete", pullOf(reg + "/one"), func(e *engine) error { _, err := e.pull(reg + "/one"); return err }},
		{"Pushing", pushOf(reg + "/three"), func(e *engine) error { return pushOf(reg+"/four")(e, e.ctx, progress.Discard) }},
		{"Pushed", pushOf(reg + "/five"), func(e *engine) error { return pushOf(reg+"/four")(e, e.ctx, progress.Discard) }},
	} {
		t.Run(tc.status, func(t *testing.T) {
			e := src
			if tc.status == "Downloading" || tc.status == "Download complete" {
				e = start(t, "")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s := &stopped{at: tc.status, stuck: make(chan struct{}), until: ctx}
			ended := make(chan error, 4)
			const slots = 5 // as many as there are, of downloads or uploads
			for range slots {
				go func() { ended <- tc.verb(e, ctx, s) }()
			}
			select {
			case <-s.stuck:
			case <-ctx.Done():
				t.Fatal("no such report")
			}
			time.Sleep(100 * time.Millisecond) // and the others, as far as they come
			done := make(chan error, 1)
			go func() { done <- tc.after(e) }()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(20 * time.Second):
				t.Error("another client waits")
			}
			cancel()
			for range slots { // how far they came does not matter
				<-ended
			}
		})
	}
}

func pullOf(ref string) func(*engine, context.Context, progress.Sink) error {
	return func(e *engine, ctx context.Context, p progress.Sink) error {
		return e.Pull(ctx, images.PullOptions{Ref: ref}, p)
	}
}

func pushOf(ref string) func(*engine, context.Context, progress.Sink) error {
	return func(e *engine, ctx context.Context, p progress.Sink) error {
		return e.Push(ctx, images.PushOptions{Ref: ref}, p)
	}
}
