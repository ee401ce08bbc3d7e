// Skiff-shim is the parent of all containers; skiffd carries and starts it.
package main

import (
	"os"

	"github.com/skiff-containers/skiff/internal/runtime/shim"
)

func main() { os.Exit(shim.Main(os.Args)) }
