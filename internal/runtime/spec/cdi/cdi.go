// Package cdi finds devices that their vendors describe in files, as the
// Container Device Interface has it, and adds them to specifications.
package cdi

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// DefaultDirs are where vendors put their files; later ones outweigh earlier.
func DefaultDirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// Devices are those of some directories.
type Devices struct{ dirs []string }

// New looks nowhere yet: files come and go while the daemon runs.
func New(dirs []string) *Devices { return &Devices{slices.Clone(dirs)} }

// Dirs are where it looks.
func (d *Devices) Dirs() []string { return slices.Clone(d.dirs) }

// read reads the files anew. What one of them gets wrong concerns only those
// who ask for its devices.
func (d *Devices) read() (*cdi.Cache, error) {
	return cdi.NewCache(cdi.WithAutoRefresh(false), cdi.WithSpecDirs(d.dirs...))
}

// List returns the names, like "vendor.com/class=name", in order.
func (d *Devices) List() []string {
	c, err := d.read()
	if err != nil {
		return nil
	}
	return c.ListDevices()
}

// Inject adds devices to s.
func (d *Devices) Inject(s *specs.Spec, names []string) error {
	c, err := d.read()
	if err == nil {
		_, err = c.InjectDevices(s, names...)
	}
	if err != nil {
		return fmt.Errorf("CDI device injection failed: %w", err)
	}
	return nil
}
