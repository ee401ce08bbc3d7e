//go:build !embedshim

package shimbin

// Binary returns nil: this build carries no executable (`make build` makes one
// that does).
func Binary() []byte { return nil }
