//go:build root

// Package parity runs the same scripts on dockerd and on skiffd and compares
// what clients see: exit codes, outputs, HTTP statuses, messages and the shape
// of JSON. Each difference is a bug, or is explained in testdata/differences.txt,
// from which UPDATE=1 makes a part of docs/compat.md.
package parity

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "runc" {
		os.Exit(wrapRunc()) // see runc_test.go
	}
	harness.Main(m)
}
