//go:build root

package images_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/engine/images"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/progress"
	"github.com/skiff-containers/skiff/internal/oci"
	"github.com/skiff-containers/skiff/internal/registryd/registrytest"
)

// twoPlatforms pulls an index of two platforms, both of them.
func twoPlatforms(t *testing.T, e *engine) (ref string, host, other ocispec.Platform) {
	t.Helper()
	reg := registrytest.Start(t)
	host, other = oci.HostPlatform(), ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	for tag, p := range map[string]ocispec.Platform{"host": host, "other": other} {
		if _, err := e.Import(e.ctx, rootfs(t, map[string]string{"f": tag}), images.ImportOptions{Ref: reg + "/app:" + tag, Platform: &p}, progress.Discard); err != nil {
			t.Fatal(err)
		}
		e.push(reg + "/app:" + tag)
		e.remove(reg + "/app:" + tag)
	}
	pushIndex(t, reg, map[string]ocispec.Platform{"host": host, "other": other})
	ref = reg + "/app:multi"
	for _, p := range []ocispec.Platform{host, other} {
		if err := e.Pull(e.ctx, images.PullOptions{Ref: ref, Platform: &p}, progress.Discard); err != nil {
			t.Fatal(err)
		}
	}
	return ref, host, other
}

func (e *engine) has(ref string, p ocispec.Platform) bool {
	e.t.Helper()
	img, err := e.Resolve(e.ctx, ref, &p)
	if err != nil && !errs.Is(err, errs.NotFound) {
		e.t.Fatal(err)
	}
	return err == nil && img.Platform.Architecture == p.Architecture
}

func TestRemovePlatforms(t *testing.T) {
	e := start(t, "")
	ref, host, other := twoPlatforms(t, e)
	remove := func(o images.RemoveOptions, ps ...ocispec.Platform) (int, error) {
		o.Platforms = ps
		out, err := e.Remove(e.ctx, ref, o)
		return len(out), err
	}
	if _, err := remove(images.RemoveOptions{}, ocispec.Platform{OS: "linux", Architecture: "s390x"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("one that is not here: %v", err)
	}
	foreign, err := e.Resolve(e.ctx, ref, &other)
	if err != nil {
		t.Fatal(err)
	}
	running := true
	e.inUse = func(id string) []images.ContainerRef {
		if id != foreign.ID.String() {
			return nil
		}
		return []images.ContainerRef{{ID: "0123456789abcdef", Running: running}}
	}
	if _, err := remove(images.RemoveOptions{Force: true}, other); !errs.Is(err, errs.Conflict) {
		t.Errorf("in use: %v", err)
	}
	running = false
	if _, err := remove(images.RemoveOptions{}, other); !errs.Is(err, errs.Conflict) || !e.has(ref, other) {
		t.Errorf("used by one that is stopped: %v", err)
	}
	e.inUse = nil
	if n, err := remove(images.RemoveOptions{}, other); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if err := e.Collect(e.ctx); err != nil {
		t.Fatal(err)
	}
	if e.has(ref, other) || !e.has(ref, host) || e.read(ref, "f") != "host" {
		t.Error("not the other one went")
	}
	if err := e.Pull(e.ctx, images.PullOptions{Ref: ref, Platform: &other}, progress.Discard); err != nil {
		t.Fatal(err)
	}
	if n, err := remove(images.RemoveOptions{}, host); err != nil || n != 1 || e.has(ref, host) || e.read(ref, "f") != "other" {
		t.Error(n, err)
	}
	if n, err := remove(images.RemoveOptions{}, other); err != nil || n < 2 {
		t.Errorf("the last one: %d, %v", n, err)
	}
	e.empty()
}

func TestSavePlatforms(t *testing.T) {
	e := start(t, "")
	ref, host, other := twoPlatforms(t, e)
	var b bytes.Buffer
	if err := e.Save(e.ctx, []string{ref}, []ocispec.Platform{other, host, host}, &b); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(e.ctx, []string{ref}, []ocispec.Platform{host, {OS: "linux", Architecture: "s390x"}}, io.Discard); !errs.Is(err, errs.NotFound) {
		t.Errorf("one that is not here: %v", err)
	}
	docs := map[string][]byte{}
	for tr := tar.NewReader(bytes.NewReader(b.Bytes())); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		docs[h.Name], _ = io.ReadAll(tr)
	}
	var x, inner ocispec.Index
	var list []struct {
		Config   string
		RepoTags []string
	}
	_ = json.Unmarshal(docs["index.json"], &x)
	_ = json.Unmarshal(docs["manifest.json"], &list)
	if len(x.Manifests) != 1 || x.Manifests[0].Annotations["io.containerd.image.name"] != ref {
		t.Fatalf("index.json: %s", docs["index.json"])
	}
	_ = json.Unmarshal(docs["blobs/sha256/"+x.Manifests[0].Digest.Encoded()], &inner)
	if len(inner.Manifests) != 2 || inner.Manifests[0].Platform.Architecture != "riscv64" {
		t.Errorf("index: %+v", inner)
	}
	img, err := e.Resolve(e.ctx, ref, &host)
	if err != nil || len(list) != 1 || list[0].RepoTags[0] != ref || list[0].Config != "blobs/sha256/"+img.ID.Encoded() {
		t.Errorf("manifest.json: %s, %v", docs["manifest.json"], err)
	}

	e2 := start(t, "")
	if err := e2.Load(e2.ctx, &b, nil, &sink{}); err != nil {
		t.Fatal(err)
	}
	if !e2.has(ref, host) || !e2.has(ref, other) || e2.read(ref, "f") != "host" {
		t.Error("loaded: not both")
	}
}
