package logs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// Whatever part of a write was logged before a crash, also over a rotation,
// replaying all of it leaves each byte there once.
func TestReplay(t *testing.T) {
	for _, driver := range []string{DriverLocal, DriverJSONFile} {
		for seed := range uint64(40) {
			t.Run(fmt.Sprint(driver, seed), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				l := runtime.Log{Driver: driver, Path: filepath.Join(t.TempDir(), "log"), MaxSize: 6000, MaxFiles: 20}
				open := func() Replayer {
					w, err := NewWriter(l)
					if err != nil {
						t.Fatal(err)
					}
					return w.(Replayer)
				}
				var text strings.Builder
				for i := range 600 {
					fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("x", rnd.IntN(20)))
				}
				all := text.String()
				at := rnd.IntN(len(all))            // logged before the mark
				crash := rnd.IntN(len(all)-at) + at // logged when it crashed
				w := open()
				write := func(p string) {
					for len(p) > 0 {
						n := min(len(p), rnd.IntN(700)+1)
						if err := w.Write(Stdout, time.Now(), []byte(p[:n])); err != nil {
							t.Fatal(err)
						}
						if err := w.Write(Stderr, time.Now(), []byte("other\n")); err != nil {
							t.Fatal(err)
						}
						p = p[n:]
					}
				}
				write(all[:at])
				place, held := w.Place(Stdout)
				at -= held
				write(all[at+held : crash])
				if rnd.IntN(3) == 0 { // else what was held back is lost
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
				}
				w = open()
				if err := w.Replay(Stdout, time.Now(), []byte(all[at:crash]), place); err != nil {
					t.Fatal(err)
				}
				write(all[crash:])
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				r, err := Open(context.Background(), l, ReadOptions{Stdout: true, Tail: -1, TTY: true})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.Close() }()
				var got strings.Builder
				if _, err := r.WriteTo(&got); err != nil {
					t.Fatal(err)
				}
				if got.String() != all {
					t.Errorf("mark at %d, crash at %d: %d bytes of %d", at, crash, got.Len(), len(all))
				}
			})
		}
	}
}
