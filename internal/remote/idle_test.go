package remote

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// TestARegistryThatStandsStill sends half of a blob, and then nothing while the
// connection stays open.
func TestARegistryThatStandsStill(t *testing.T) {
	text := strings.Repeat("x", 100_000)
	var asked, answers atomic.Int32 // answers: how many of them stand still
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > answers.Load() {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
			return
		}
		w.Header().Set("Content-Length", "100000")
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", "bytes 50000-99999/100000")
			w.Header().Set("Content-Length", "50000")
			w.WriteHeader(http.StatusPartialContent)
		} else {
			_, _ = io.WriteString(w, text[:50_000])
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	c, err := New(Options{Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c.idle = 200 * time.Millisecond
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(srv.URL, "http://") + "/app")
	if err != nil {
		t.Fatal(err)
	}
	repo := c.Repository(named, nil)
	read := func() (string, error) {
		asked.Store(0)
		rc, err := repo.Blob(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(text), Size: int64(len(text))})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rc.Close() }()
		var b strings.Builder
		buf := make([]byte, 1000)
		if _, err := io.ReadFull(rc, buf); err != nil {
			return "", err
		}
		time.Sleep(2 * c.idle) // it is the registry that must not stand still
		b.Write(buf)
		_, err = io.Copy(&b, rc)
		return b.String(), err
	}
	answers.Store(0)
	if got, err := read(); err != nil || got != text {
		t.Errorf("a slow reader got %d bytes, %v", len(got), err)
	}
	answers.Store(1)
	if got, err := read(); err != nil || got != text || asked.Load() != 2 {
		t.Errorf("once: %d bytes, %v, asked %d times", len(got), err, asked.Load())
	}
	answers.Store(100)
	_, err = read()
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "sent nothing for 200ms") || !errs.Is(repo.Explain(err), errs.Unavailable) {
		t.Errorf("always: %v", err)
	}
}
