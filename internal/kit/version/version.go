// Package version holds what the release build stamps into the executables.
package version

// Version and Commit are set by the linker (see the Makefile).
var (
	Version = "0.1.0-dev"
	Commit  = "unknown"
)
