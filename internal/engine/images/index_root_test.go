//go:build root

package images_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/registryd/registrytest"
)

// pushIndex puts an index of the images that the tags name into a registry.
func pushIndex(t *testing.T, reg string, tags map[string]ocispec.Platform) digest.Digest {
	t.Helper()
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for tag, p := range tags {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+reg+"/v2/app/manifests/"+tag, nil)
		req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		x.Manifests = append(x.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b)), Platform: &p})
	}
	b, _ := json.Marshal(x)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+reg+"/v2/app/manifests/multi", bytes.NewReader(b))
	req.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
	return digest.FromBytes(b)
}

func TestIndexes(t *testing.T) {
	reg := registrytest.Start(t)
	e := start(t, "")
	host := oci.HostPlatform()
	other := ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	for tag, p := range map[string]ocispec.Platform{"host": host, "other": other} {
		if _, err := e.Import(e.ctx, rootfs(t, map[string]string{"f": tag}), images.ImportOptions{Ref: reg + "/app:" + tag, Platform: &p}, progress.Discard); err != nil {
			t.Fatal(err)
		}
		e.push(reg + "/app:" + tag)
		e.remove(reg + "/app:" + tag)
	}
	e.empty()
	want := pushIndex(t, reg, map[string]ocispec.Platform{"host": host, "other": other})
	ref := reg + "/app:multi"
	if _, err := e.pull(ref); err != nil {
		t.Fatal(err)
	}
	if e.read(ref, "f") != "host" {
		t.Error("not the host's image")
	}
	got, err := e.Inspect(e.ctx, ref, nil, true)
	if err != nil || len(got.RepoDigests) != 1 || !strings.HasSuffix(got.RepoDigests[0], want.String()) || len(got.Manifests) != 1 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := e.Resolve(e.ctx, ref, &other); !errs.Is(err, errs.NotFound) {
		t.Errorf("a platform that was not pulled: %v", err)
	}
	// Half an index goes out as the image that is here.
	if err := e.Tag(e.ctx, ref, reg+"/half"); err != nil {
		t.Fatal(err)
	}
	e.push(reg + "/half")
	if d, err := e.Distribution(e.ctx, reg+"/half", nil); err != nil || d.Descriptor.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("%+v %v", d, err)
	}
	// The other platform joins; then the whole index goes out.
	if err := e.Pull(e.ctx, images.PullOptions{Ref: ref, Platform: &other}, progress.Discard); err != nil {
		t.Fatal(err)
	}
	img, err := e.Resolve(e.ctx, ref, &other)
	if err != nil || img.Platform.Architecture != "riscv64" {
		t.Errorf("%+v %v", img, err)
	}
	if e.read(ref, "f") != "host" {
		t.Error("the host's image gave way")
	}
	if err := e.Tag(e.ctx, ref, reg+"/whole"); err != nil {
		t.Fatal(err)
	}
	e.push(reg + "/whole")
	if d, err := e.Distribution(e.ctx, reg+"/whole", nil); err != nil || d.Descriptor.Digest != want || len(d.Platforms) != 2 {
		t.Errorf("%+v %v", d, err)
	}
	err = e.Pull(e.ctx, images.PullOptions{Ref: ref, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, progress.Discard)
	if err == nil || err.Error() != "no matching manifest for linux/s390x in the manifest list entries" {
		t.Errorf("got %v", err)
	}
	for _, r := range []string{ref, reg + "/half", reg + "/whole"} {
		if _, err := e.Remove(e.ctx, r, images.RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	e.empty()
}

// TestKilledPull leaves what a killed process leaves, and starts anew.
func TestKilledPull(t *testing.T) {
	root := t.TempDir()
	e := start(t, root)
	ctx := e.store.Context(e.ctx)
	l, err := e.store.Leases.Create(ctx, leases.WithID("pull-x"), leases.WithLabels(map[string]string{"skiff.verb": "pull"}))
	if err != nil {
		t.Fatal(err)
	}
	ctx = leases.WithLease(ctx, l.ID)
	if _, err := e.store.Extract(ctx, rootfs(t, map[string]string{"f": "x"})); err != nil {
		t.Fatal(err)
	}
	w, err := e.store.RawContent().Writer(ctx, func(o *ctdcontent.WriterOpts) error { o.Ref = "layer-x"; return nil })
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte("half"))
	_ = w.Close()
	if err := os.MkdirAll(filepath.Join(root, "layers/dirs/orphan/fs"), 0o700); err != nil {
		t.Fatal(err)
	}
	e.Close()
	_ = e.store.Close()
	e = start(t, root)
	e.empty()
}
