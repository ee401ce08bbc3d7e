package apiserver

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// MaxAPIVersion is the newest version of the API spoken here, and what a path
// without a version means. DefaultMinAPIVersion is the oldest.
const (
	MaxAPIVersion        = "1.56"
	DefaultMinAPIVersion = "1.24"
)

// apiVersion is a version of docker's API: 1.41 is {1, 41}.
type apiVersion struct{ major, minor int }

// parseVersion reads "1.41"; a lone "1" is 1.0.
func parseVersion(s string) (v apiVersion, ok bool) {
	major, minor, dotted := strings.Cut(s, ".")
	if v.major, ok = number(major); !ok {
		return v, false
	}
	if dotted {
		v.minor, ok = number(minor)
	}
	return v, ok
}

// CheckMinVersion checks what may be the oldest version served.
func CheckMinVersion(s string) error {
	v, ok := parseVersion(s)
	least, _ := parseVersion(DefaultMinAPIVersion)
	most, _ := parseVersion(MaxAPIVersion)
	switch {
	case s == "":
		return errs.New(errs.Invalid, "value is empty")
	case s[0] == 'v' || s[0] == 'V':
		return errs.New(errs.Invalid, `API version must be provided without "v" prefix`)
	case !ok:
		return errs.Newf(errs.Invalid, "%q is not a version", s)
	case v.less(least):
		return errs.Newf(errs.Invalid, "minimum supported API version is %s: %s", least, s)
	case most.less(v):
		return errs.Newf(errs.Invalid, "maximum supported API version is %s: %s", most, s)
	}
	return nil
}

func number(s string) (int, bool) {
	if s == "" || len(s) > 4 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil
}

func (v apiVersion) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v apiVersion) less(o apiVersion) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

// before reports whether v is older than version 1.minor.
func (v apiVersion) before(minor int) bool { return v.less(apiVersion{1, minor}) }

// splitVersion cuts the version off a path: "/v1.41/info" is 1.41 and "/info".
// Without one, version is "".
func splitVersion(path string) (version, rest string) {
	if len(path) < 3 || path[:2] != "/v" || path[2] < '0' || path[2] > '9' {
		return "", path
	}
	version, rest, _ = strings.Cut(path[2:], "/")
	return version, "/" + rest
}
