package oci_test

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/oci"
)

const (
	d1       = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"` + d1 + `","size":2},"layers":[{"digest":"` + d1 + `","size":3}]}`
	index    = `{"schemaVersion":2,"manifests":[{"digest":"` + d1 + `","size":1,"mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{"os":"linux","architecture":"amd64"}},
{"digest":"` + d1 + `","size":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{"os":"linux","architecture":"arm64","variant":"v8"}},
{"digest":"` + d1 + `","size":3,"mediaType":"application/vnd.oci.image.manifest.v1+json","platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}}]}`
)

func TestParseManifest(t *testing.T) {
	if m, err := oci.ParseManifest(ocispec.MediaTypeImageManifest, []byte(manifest)); err != nil || len(m.Layers) != 1 {
		t.Errorf("%v %v", m, err)
	}
	for name, tc := range map[string]struct{ mt, body string }{
		"another type (CVE-2021-41190)": {"application/vnd.docker.distribution.manifest.v2+json", manifest},
		"both kinds (CVE-2021-41190)":   {"", strings.Replace(manifest, `"layers"`, `"manifests":[],"layers"`, 1)},
		"schema 1":                      {"", `{"schemaVersion":1,"fsLayers":[]}`},
		"bad digest":                    {"", strings.Replace(manifest, d1, "sha256:../../x", 1)},
		"negative size":                 {"", strings.Replace(manifest, `"size":3`, `"size":-3`, 1)},
		"no JSON":                       {"", "<html>"},
		"too many layers":               {"", strings.Replace(manifest, `"layers":[`, `"layers":[`+strings.Repeat(`{"digest":"`+d1+`","size":1},`, 600), 1)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := oci.ParseManifest(tc.mt, []byte(tc.body)); !errs.Is(err, errs.Invalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	x, err := oci.ParseIndex(ocispec.MediaTypeImageIndex, []byte(index))
	if err != nil {
		t.Fatal(err)
	}
	for want, size := range map[string]int64{"amd64": 1, "arm64": 2} {
		got := oci.Choose(x, oci.Matcher(&ocispec.Platform{OS: "linux", Architecture: want}))
		if len(got) != 1 || got[0].Size != size {
			t.Errorf("%s: %v", want, got)
		}
	}
	if got := oci.Choose(x, oci.Matcher(&ocispec.Platform{OS: "linux", Architecture: "s390x"})); len(got) != 0 {
		t.Errorf("s390x: %v", got)
	}
	if _, err := oci.ParseIndex("", []byte(manifest)); !errs.Is(err, errs.Invalid) {
		t.Errorf("a manifest as index: %v", err)
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "busybox:1": "docker.io/library/busybox:1", "reg:5000/a/b": "reg:5000/a/b:latest",
		"busybox:1@" + d1: "docker.io/library/busybox@" + d1,
	} {
		if n, err := oci.ParseNamed(in); err != nil || n.String() != want {
			t.Errorf("%s: %v %v", in, n, err)
		}
	}
	for _, in := range []string{"", "a:b:c", "A", "a//b", "x@sha256:1"} {
		if _, err := oci.ParseNamed(in); !errs.Is(err, errs.Invalid) || !strings.HasPrefix(err.Error(), "invalid reference format") {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"x@" + d1, "sha256:" + strings.Repeat("a", 10)} {
		if _, err := oci.ParseTagged(in); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestNewManifestUsesOCITypes(t *testing.T) {
	desc, body, err := oci.NewManifest(ocispec.Descriptor{Digest: d1, MediaType: "application/vnd.docker.container.image.v1+json"},
		[]ocispec.Descriptor{{Digest: d1, MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip"}}, nil)
	if err != nil || desc.Digest != digest.FromBytes(body) {
		t.Fatal(err)
	}
	m, err := oci.ParseManifest(desc.MediaType, body)
	if err != nil || m.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip || m.Config.MediaType != ocispec.MediaTypeImageConfig {
		t.Errorf("%+v %v", m, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(manifest))
	f.Add([]byte(index))
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["` + d1 + `"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := oci.ParseManifest("", b); err == nil {
			for _, l := range m.Layers {
				if l.Digest.Validate() != nil || l.Size < 0 {
					t.Error("bad layer passed")
				}
			}
		}
		if x, err := oci.ParseIndex("", b); err == nil {
			_ = oci.Choose(x, oci.Host())
		}
		if c, err := oci.ParseConfig(b); err == nil {
			for _, d := range c.RootFS.DiffIDs {
				if d.Validate() != nil {
					t.Error("bad diff id passed")
				}
			}
		}
	})
}
