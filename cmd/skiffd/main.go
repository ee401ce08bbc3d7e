// Command skiffd is the Skiff daemon.
package main

import (
	"os"

	"github.com/skiff-containers/skiff/internal/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:], os.Stdout, os.Stderr)) }
