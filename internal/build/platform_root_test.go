//go:build root

package build_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The image of another platform is the engine's too, with its layers.
func TestAnotherPlatform(t *testing.T) {
	e := newEnv(t)
	e.base()
	c := e.grpcClient()
	defer func() { _ = c.Close() }()
	const dockerfile = "FROM --platform=$BUILDPLATFORM base AS make\nARG TARGETARCH\nRUN echo $TARGETARCH > /p\nFROM scratch\nCOPY --from=make /p /p\n"
	for name, attrs := range map[string]map[string]string{
		"the short way":     {"platform": "linux/s390x"},
		"several platforms": {"platform": "linux/amd64,linux/s390x,linux/arm64"},
		"with attestations": {"platform": "linux/s390x", "attest:provenance": "mode=max"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := e.solve(c, dockerfile, client.SolveOpt{
				FrontendAttrs: attrs, Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "next"}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx := e.store.Context(t.Context())
			id := digest.Digest(r.ExporterResponse["containerimage.config.digest"])
			if strings.Contains(attrs["platform"], ",") {
				id = e.configFor("s390x")
			}
			info, err := e.store.Content.Info(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			b, err := ctdcontent.ReadBlob(ctx, e.store.Content, ocispec.Descriptor{Digest: id, Size: info.Size})
			if err != nil {
				t.Fatal(err)
			}
			var img ocispec.Image
			if err := json.Unmarshal(b, &img); err != nil || img.Architecture != "s390x" || len(img.RootFS.DiffIDs) != 1 {
				t.Fatalf("%v: %s", err, b)
			}
			dirs, err := e.store.LayerDirs(t.Context(), img.RootFS.DiffIDs[0])
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(dirs[0], "p")); err != nil || string(got) != "s390x\n" {
				t.Errorf("/p holds %q, %v", got, err)
			}
		})
	}
	_, err := e.solve(c, "FROM base\nLABEL a=b\n", client.SolveOpt{FrontendAttrs: map[string]string{"platform": "linux/s390x"}})
	if err == nil {
		t.Error("a base that is here for another platform was used")
	}
}

// configFor finds the configuration for one architecture in the index.
func (e *env) configFor(arch string) digest.Digest {
	e.t.Helper()
	ctx := e.store.Context(e.t.Context())
	img, err := e.store.Images.Get(ctx, nextName)
	if err != nil {
		e.t.Fatal(err)
	}
	m, err := images.Manifest(ctx, e.store.Content, img.Target, platforms.OnlyStrict(ocispec.Platform{OS: "linux", Architecture: arch}))
	if err != nil {
		e.t.Fatal(err)
	}
	return m.Config.Digest
}
