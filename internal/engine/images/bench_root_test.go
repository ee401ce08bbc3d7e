//go:build root

package images_test

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/registryd/registrytest"
)

// TestBigImage shows what pull, push, save, load and rmi of a real tree cost.
// It runs when SKIFF_BENCH_TREES names directories, one a layer, as in
// SKIFF_BENCH_TREES=/usr/lib:/usr/share.
func TestBigImage(t *testing.T) {
	trees := filepath.SplitList(os.Getenv("SKIFF_BENCH_TREES"))
	if len(trees) == 0 {
		t.Skip("SKIFF_BENCH_TREES is not set")
	}
	reg := registrytest.Start(t)
	e := start(t, "")
	took := func(what string, f func() error) {
		t.Helper()
		begin := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%-8s %v", what, time.Since(begin).Round(time.Millisecond))
	}
	ref := reg + "/big"
	took("import", func() error {
		pr, pw := io.Pipe()
		go func() { _ = pw.CloseWithError(tarTree(pw, trees[0])) }()
		_, err := e.Import(e.ctx, pr, images.ImportOptions{Ref: ref}, progress.Discard)
		return err
	})
	for i, tree := range trees[1:] {
		took(fmt.Sprintf("commit%d", i), func() error {
			base, err := e.Resolve(e.ctx, ref, nil)
			if err == nil {
				_, err = e.Commit(e.ctx, images.CommitSpec{Parent: base, Upper: tree, Ref: ref})
			}
			return err
		})
	}
	img, err := e.Inspect(e.ctx, ref, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MB in %d layers", img.Size>>20, len(img.RootFS.Layers))
	took("push", func() error { return e.Push(e.ctx, images.PushOptions{Ref: ref}, progress.Discard) })
	took("rmi", func() error { e.remove(ref); return nil })
	took("collect", func() error { return e.Collect(e.ctx) })
	took("pull", func() error { return e.Pull(e.ctx, images.PullOptions{Ref: ref}, progress.Discard) })
	archive := filepath.Join(t.TempDir(), "saved.tar")
	took("save", func() error {
		f, err := os.Create(archive)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return e.Save(e.ctx, []string{ref}, nil, f)
	})
	e2 := start(t, "")
	took("load", func() error {
		f, err := os.Open(archive)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		return e2.Load(e2.ctx, f, nil, progress.Discard)
	})
}

func tarTree(w io.Writer, root string) error {
	tw := tar.NewWriter(w)
	if err := tw.AddFS(onlyFiles{os.DirFS(root)}); err != nil {
		return err
	}
	return tw.Close()
}

type onlyFiles struct{ fs.FS }

func (o onlyFiles) ReadDir(name string) ([]fs.DirEntry, error) {
	ents, err := fs.ReadDir(o.FS, name)
	var out []fs.DirEntry
	for _, e := range ents {
		if e.IsDir() || e.Type().IsRegular() {
			out = append(out, e)
		}
	}
	return out, err
}
