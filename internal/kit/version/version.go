// Package version holds what the release build stamps into the executables.
package version

// Set by the linker (see the Makefile). Built is the commit's time, RFC 3339:
// the same sources make the same executables.
var (
	Version = "0.1.0-dev"
	Commit  = "unknown"
	Built   = ""
)
