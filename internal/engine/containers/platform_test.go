package containers

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/oci"
)

func TestForeignPlatform(t *testing.T) {
	host := oci.HostPlatform()
	level := host
	if level.Architecture == "amd64" {
		level.Variant = "v3"
	}
	for name, p := range map[string]ocispec.Platform{
		"the host's": host, "a level of it": level, "not told": {OS: "linux"},
	} {
		if w := foreignPlatform(p); w != "" {
			t.Errorf("%s: %s", name, w)
		}
	}
	w := foreignPlatform(ocispec.Platform{OS: "linux", Architecture: "mips64", Variant: "r6"})
	if !strings.HasPrefix(w, "The requested image's platform (linux/mips64/r6) does not match the detected host platform (linux/") {
		t.Errorf("another: %q", w)
	}
}
