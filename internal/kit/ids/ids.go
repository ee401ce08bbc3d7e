// Package ids makes the identifiers of containers, networks, volumes and execs.
package ids

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strconv"
)

// Len is the length of a full identifier in hex digits.
const Len = 64

// New returns a random identifier of [Len] hex digits. As docker does, one
// whose short form is a decimal number is not used: it could be taken for one.
func New() string {
	var b [Len / 2]byte
	for {
		_, _ = rand.Read(b[:]) // never fails: see crypto/rand
		id := hex.EncodeToString(b[:])
		if _, err := strconv.ParseInt(Short(id), 10, 64); err != nil {
			return id
		}
	}
}

// Short returns the first 12 digits of an identifier, without "sha256:".
func Short(id string) string {
	if len(id) > 7 && id[:7] == "sha256:" {
		id = id[7:]
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

var hexRE = regexp.MustCompile(`^[a-f0-9]{1,64}$`)

// IsPrefix reports whether s may be a prefix of an identifier.
func IsPrefix(s string) bool { return hexRE.MatchString(s) }

// Name patterns that docker's clients rely on.
var nameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// NamePattern is the pattern of container, network and volume names, as shown
// in errors.
const NamePattern = `[a-zA-Z0-9][a-zA-Z0-9_.-]`

// ValidName reports whether s may name a container, network or volume.
func ValidName(s string) bool { return nameRE.MatchString(s) }
