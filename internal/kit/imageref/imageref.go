// Package imageref reads image references for the command line and its client,
// which should start in a few milliseconds: it follows the grammar of
// github.com/distribution/reference, which compiles a dozen regular
// expressions before main runs. A test holds the two against each other.
package imageref

import (
	"errors"
	"fmt"
	"strings"
)

const (
	hub       = "docker.io"
	legacyHub = "index.docker.io"
	official  = "library/"
	maxName   = 255
	maxTag    = 128
)

// ErrFormat says that a text is no reference.
var ErrFormat = errors.New("invalid reference format")

// Ref is an image's name in full, with a tag, a digest, both or none.
type Ref struct {
	Domain string // "docker.io", "registry.example:5000"
	Path   string // "library/busybox"
	Tag    string // "" if none was given
	Digest string // "sha256:…", "" if none was given
}

// Parse reads a reference as users write it: "busybox" is
// docker.io/library/busybox.
func Parse(s string) (Ref, error) {
	if isIdentifier(s) {
		return Ref{}, fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	domain, rest := splitDomain(s)
	name, _, _ := strings.Cut(rest, ":")
	if strings.ToLower(name) != name {
		return Ref{}, fmt.Errorf("invalid reference format: repository name (%s) must be lowercase", name)
	}
	r := Ref{Domain: domain}
	head, dgst, hasDigest := strings.Cut(rest, "@")
	if hasDigest {
		if !isDigest(dgst) {
			return Ref{}, ErrFormat
		}
		r.Digest = dgst
	}
	path, tag, hasTag := strings.Cut(head, ":")
	if hasTag {
		if !isTag(tag) {
			return Ref{}, ErrFormat
		}
		r.Tag = tag
	}
	if !isDomain(domain) || !isPath(path) {
		return Ref{}, ErrFormat
	}
	r.Path = path
	if len(path) > maxName {
		return Ref{}, fmt.Errorf("repository name must not be more than %d characters", maxName)
	}
	return r, checkDigest(r.Digest)
}

// IsID reports whether s is an image's ID or a digest in full, which are no
// names.
func IsID(s string) bool {
	return isIdentifier(s) || isDigest(s) && checkDigest(s) == nil
}

// Name is the repository's name in full, without tag and digest.
func (r Ref) Name() string { return r.Domain + "/" + r.Path }

// Familiar is the name as users write it.
func (r Ref) Familiar() string {
	if r.Domain != hub {
		return r.Name()
	}
	if rest, ok := strings.CutPrefix(r.Path, official); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.Path
}

func (r Ref) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// String is the whole reference in full.
func (r Ref) String() string { return r.Name() + r.suffix() }

// FamiliarString is the whole reference as users write it.
func (r Ref) FamiliarString() string { return r.Familiar() + r.suffix() }

// NameOnly reports whether there is neither tag nor digest.
func (r Ref) NameOnly() bool { return r.Tag == "" && r.Digest == "" }

// Tagged is r with the tag "latest" if it has neither tag nor digest.
func (r Ref) Tagged() Ref {
	if r.NameOnly() {
		r.Tag = "latest"
	}
	return r
}

// splitDomain tells a registry from a repository's first part: a registry has a
// dot, a port or capitals, or is localhost.
func splitDomain(s string) (domain, rest string) {
	first, rest, ok := strings.Cut(s, "/")
	switch {
	case !ok:
		return hub, official + s
	case first == legacyHub:
		domain = hub
	case first == "localhost" || strings.ContainsAny(first, ".:") || strings.ToLower(first) != first:
		domain = first
	default:
		domain, rest = hub, s
	}
	if domain == hub && !strings.Contains(rest, "/") {
		rest = official + rest
	}
	return domain, rest
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }
func digit(c byte) bool { return '0' <= c && c <= '9' }
func alnum(c byte) bool { return lower(c) || 'A' <= c && c <= 'Z' || digit(c) }
func hex(c byte) bool   { return digit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

// every reports whether s is not empty and all of it is of one class.
func every(s string, class func(byte) bool) bool {
	for i := range len(s) {
		if !class(s[i]) {
			return false
		}
	}
	return s != ""
}

func isIdentifier(s string) bool {
	return len(s) == 64 && every(s, func(c byte) bool { return digit(c) || 'a' <= c && c <= 'f' })
}

func isTag(s string) bool {
	word := func(c byte) bool { return alnum(c) || c == '_' }
	return len(s) <= maxTag && every(s, func(c byte) bool { return word(c) || c == '.' || c == '-' }) && word(s[0])
}

// isDomain: a host name or bracketed IPv6 address, and perhaps a port.
func isDomain(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || !every(s[1:end], func(c byte) bool { return hex(c) || c == ':' }) {
			return false
		}
		host, port = "", s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	if port != "" && (port[0] != ':' || !every(port[1:], digit)) {
		return false
	}
	if host == "" {
		return s != "" && s[0] == '['
	}
	for label := range strings.SplitSeq(host, ".") {
		if !every(label, func(c byte) bool { return alnum(c) || c == '-' }) || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// isPath: components of lower-case letters and digits, with single dots, one or
// two underscores or any dashes between.
func isPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !isComponent(part) {
			return false
		}
	}
	return true
}

func isComponent(s string) bool {
	small := func(c byte) bool { return lower(c) || digit(c) }
	for i := 0; i < len(s); {
		start := i
		for i < len(s) && small(s[i]) {
			i++
		}
		if i == start {
			return false
		}
		if i == len(s) {
			return true
		}
		start = i
		for i < len(s) && !small(s[i]) {
			i++
		}
		switch sep := s[start:i]; {
		case sep == "." || sep == "_" || sep == "__":
		case strings.Trim(sep, "-") == "":
		default:
			return false
		}
	}
	return false
}

// isDigest: an algorithm of words, a colon, and 32 or more hexadecimal digits.
func isDigest(s string) bool {
	algorithm, value, ok := strings.Cut(s, ":")
	if !ok || len(value) < 32 || !every(value, hex) {
		return false
	}
	for algorithm != "" {
		i := strings.IndexAny(algorithm, "-_+.")
		word := algorithm
		if i >= 0 {
			word, algorithm = algorithm[:i], algorithm[i+1:]
		}
		if !every(word, alnum) || digit(word[0]) {
			return false
		}
		if i < 0 {
			return true
		}
	}
	return false
}

// checkDigest checks a well-formed digest's algorithm and length.
func checkDigest(s string) error {
	if s == "" {
		return nil
	}
	algorithm, value, _ := strings.Cut(s, ":")
	want, known := map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]
	switch {
	case !known && strings.ToLower(algorithm) != algorithm, known && len(value) == want && strings.ToLower(value) != value:
		return errors.New("invalid checksum digest format")
	case !known:
		return errors.New("unsupported digest algorithm")
	case len(value) != want:
		return errors.New("invalid checksum digest length")
	}
	return nil
}
