package content_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/content"
)

// maker makes one blob, and lies if asked to.
type maker struct {
	text string
	lie  bool
}

func (m maker) Made(_ context.Context, d digest.Digest) (int64, bool) {
	return int64(len(m.text)), d == digest.FromString(m.text)
}

func (m maker) Make(_ context.Context, _ digest.Digest, w io.Writer) error {
	text := m.text
	if m.lie {
		text = "x" + text[1:]
	}
	_, err := io.WriteString(w, text)
	return err
}

func TestBlobsAreMadeOnDemand(t *testing.T) {
	ctx := t.Context()
	cs, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	m := maker{text: "a layer's archive"}
	s := content.WithMaker(cs, m, tmp)
	desc := ocispec.Descriptor{Digest: digest.FromString(m.text)}
	info, err := s.Info(ctx, desc.Digest)
	if err != nil || info.Size != int64(len(m.text)) || s.Stored(ctx, desc.Digest) {
		t.Errorf("%+v %v", info, err)
	}
	b, err := content.ReadBlob(ctx, s, desc, 100)
	if err != nil || string(b) != m.text {
		t.Errorf("%q %v", b, err)
	}
	if _, err := content.ReadBlob(ctx, s, desc, 5); !errdefs.IsInvalidArgument(err) {
		t.Errorf("over the limit: %v", err)
	}
	var out bytes.Buffer
	if n, err := s.WriteTo(ctx, desc.Digest, &out); err != nil || n != info.Size || out.String() != m.text {
		t.Errorf("%d %v", n, err)
	}
	if _, err := s.ReaderAt(ctx, ocispec.Descriptor{Digest: digest.FromString("other")}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
	liar := content.WithMaker(cs, maker{text: m.text, lie: true}, tmp)
	if _, err := liar.ReaderAt(ctx, desc); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("changed content: %v", err)
	}
	if ents, _ := os.ReadDir(tmp); len(ents) != 0 {
		t.Errorf("left: %v", ents)
	}
}

// A daemon was killed while it began to write a blob.
func TestTornIngestsAreDropped(t *testing.T) {
	dir := t.TempDir()
	cs, err := content.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx := namespaces.WithNamespace(t.Context(), "test")
	w, err := cs.Writer(ctx, ctdcontent.WithRef("whole"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "ingest", "torn"), 0o700); err != nil {
		t.Fatal(err)
	}
	if cs, err = content.Open(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if st, err := cs.Status(ctx, "whole"); err != nil || st.Offset != 4 {
		t.Errorf("%+v, %v", st, err)
	}
}
