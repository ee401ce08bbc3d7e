package cli

import (
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parsePlatform parses os[/arch[/variant]], or an architecture alone. "" is
// nil.
func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	for _, p := range parts {
		if p == "" || strings.ContainsFunc(p, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r))
		}) {
			return nil, fmt.Errorf("invalid platform: %q: an element must be made of letters, digits, '_', '.' and '-'", s)
		}
	}
	var p ocispec.Platform
	switch len(parts) {
	case 1:
		if knownOS(parts[0]) {
			p.OS = parts[0]
			p.Architecture, p.Variant = "", ""
			return nil, fmt.Errorf("invalid platform: %q: an architecture is missing", s)
		}
		p.OS = "linux"
		p.Architecture, p.Variant = architecture(parts[0], "")
	case 2:
		p.OS = parts[0]
		p.Architecture, p.Variant = architecture(parts[1], "")
	case 3:
		p.OS = parts[0]
		p.Architecture, p.Variant = architecture(parts[1], parts[2])
	default:
		return nil, fmt.Errorf("invalid platform: %q: want os/arch[/variant]", s)
	}
	return &p, nil
}

func knownOS(s string) bool {
	switch s {
	case "linux", "windows", "darwin", "freebsd", "macos":
		return true
	}
	return false
}

// architecture maps the names that kernels use to Go's.
func architecture(arch, variant string) (string, string) {
	switch arch {
	case "x86_64", "x86-64":
		return "amd64", variant
	case "i386", "i686":
		return "386", ""
	case "aarch64":
		arch = "arm64"
	case "armhf":
		return "arm", "v7"
	case "armel":
		return "arm", "v6"
	}
	if arch == "arm64" && (variant == "8" || variant == "v8") {
		variant = ""
	}
	if arch == "arm" && len(variant) == 1 {
		variant = "v" + variant
	}
	return arch, variant
}
