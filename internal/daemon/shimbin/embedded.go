//go:build embedshim

package shimbin

import _ "embed"

//go:embed skiff-shim
var binary []byte

// Binary returns the carried executable.
func Binary() []byte { return binary }
