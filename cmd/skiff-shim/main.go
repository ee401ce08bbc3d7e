// Skiff-shim is the parent of all containers; skiffd carries and starts it. As
// "skiff-shim runtime", or by the name skiff-runtime, it is an OCI runtime.
package main

import (
	"os"

	"github.com/skiff-containers/skiff/internal/runtime/ociruntime"
	"github.com/skiff-containers/skiff/internal/runtime/shim"
)

func main() {
	if args, ok := ociruntime.Wanted(os.Args); ok {
		os.Exit(ociruntime.Main(args))
	}
	os.Exit(shim.Main(os.Args))
}
