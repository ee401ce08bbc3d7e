package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	profiles "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/runtime/launch/seccomp"
)

// What --seccomp-profile may be beside the path of a file.
const (
	seccompBuiltin    = "builtin"
	seccompUnconfined = "unconfined"
)

// maxSeccompProfile bounds the file: docker's own profile has 12 KiB, and every
// start sends it along.
const maxSeccompProfile = 1 << 20

// loadSeccomp reads the daemon's seccomp profile: at start, so that a bad file is
// told of then and not by every container, and so that all have the same.
func (c *Config) loadSeccomp() error {
	switch c.SeccompProfile {
	case "", seccompBuiltin, seccompUnconfined:
		c.seccomp = c.SeccompProfile
		return nil
	}
	text, err := readSeccomp(c.SeccompProfile)
	if err != nil {
		return fmt.Errorf("opening seccomp profile (%s) failed: %w", c.SeccompProfile, err)
	}
	c.seccomp = text
	return nil
}

func readSeccomp(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() { // a pipe would never end
		return "", fmt.Errorf("it is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSeccompProfile+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSeccompProfile {
		return "", fmt.Errorf("it has more than %d bytes", maxSeccompProfile)
	}
	return string(data), checkSeccomp(string(data))
}

// checkSeccomp makes the program of a profile, to see whether there is one.
func checkSeccomp(text string) error {
	if !json.Valid([]byte(text)) {
		return fmt.Errorf("it is not JSON")
	}
	p, err := profiles.LoadProfile(text, &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		return err
	}
	if p == nil || p.DefaultAction == "" {
		return fmt.Errorf("it has no defaultAction")
	}
	_, err = seccomp.Compile(p, seccomp.Native())
	return err
}
