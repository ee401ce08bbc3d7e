//go:build root

package shim

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/internal/runtime"
	"github.com/skiff-containers/skiff/internal/runtime/runtimetest"
)

// BenchmarkLog times a container that prints 200 MB of lines.
func BenchmarkLog(b *testing.B) {
	for _, driver := range []string{"none", "local", "json-file"} {
		b.Run(driver, func(b *testing.B) {
			c, lower := shimOf(b), runtimetest.Rootfs(b)
			ctx := context.Background()
			exits, err := c.Events(ctx)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(200 << 20)
			for i := range b.N {
				l := runtimetest.Launch(b, lower, fmt.Sprintf("log-%d", i), "sh", "-c", "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 | head -c 209715200")
				l.Log = runtime.Log{Driver: driver, Path: filepath.Join(b.TempDir(), "log"), MaxSize: 1 << 30}
				if _, err := c.Start(ctx, l); err != nil {
					b.Fatal(err)
				}
				<-exits
				if err := c.Delete(ctx, l.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
