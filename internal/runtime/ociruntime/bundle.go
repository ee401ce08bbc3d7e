//go:build linux

package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// loadBundle reads a bundle's configuration. Paths in it become absolute.
func loadBundle(dir string) (bundle string, s *specs.Spec, err error) {
	if bundle, err = filepath.Abs(dir); err != nil {
		return "", nil, err
	}
	// The bundle is what the path leads to now, wherever its links lead later.
	if bundle, err = filepath.EvalSymlinks(bundle); err != nil {
		return "", nil, err
	}
	data, err := readLimited(filepath.Join(bundle, configName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("JSON specification file %s not found in %s: %w", configName, bundle, err)
	}
	if err != nil {
		return "", nil, err
	}
	if s, err = decodeSpec(data); err != nil {
		return "", nil, fmt.Errorf("%s: %w", filepath.Join(bundle, configName), err)
	}
	if !filepath.IsAbs(s.Root.Path) {
		s.Root.Path = filepath.Join(bundle, s.Root.Path)
	}
	if st, err := os.Stat(s.Root.Path); err != nil {
		return "", nil, fmt.Errorf("root file system: %w", err)
	} else if !st.IsDir() {
		return "", nil, errs.Newf(errs.Invalid, "root file system %s is not a directory", s.Root.Path)
	}
	for i, m := range s.Mounts {
		if isBind(m) && !filepath.IsAbs(m.Source) {
			s.Mounts[i].Source = filepath.Join(bundle, m.Source)
		}
	}
	return bundle, s, nil
}

func isBind(m specs.Mount) bool {
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return m.Type == "bind"
}

// decodeSpec reads a configuration and refuses one that cannot be run.
func decodeSpec(data []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	if err := checkVersion(s.Version); err != nil {
		return nil, err
	}
	switch {
	case s.Root == nil || s.Root.Path == "":
		return nil, errs.New(errs.Invalid, "root must be specified")
	case s.Linux == nil:
		return nil, errs.New(errs.Invalid, "linux must be specified: this runtime makes Linux containers")
	case s.Solaris != nil || s.Windows != nil || s.VM != nil || s.ZOS != nil || s.FreeBSD != nil:
		return nil, errs.New(errs.Unsupported, "the configuration is for another platform")
	}
	if s.Process == nil {
		return nil, errs.New(errs.Invalid, "process property must not be empty")
	}
	if err := checkProcess(s.Process); err != nil {
		return nil, err
	}
	return &s, checkLinux(s.Linux)
}

func checkLinux(l *specs.Linux) error {
	seen := make(map[specs.LinuxNamespaceType]bool)
	for _, n := range l.Namespaces {
		if seen[n.Type] {
			return errs.Newf(errs.Invalid, "malformed spec file: duplicated ns %q", n.Type)
		}
		seen[n.Type] = true
	}
	return nil
}

// checkVersion takes every 1.x: what a newer one adds is refused where it is used.
func checkVersion(v string) error {
	major, rest, ok := strings.Cut(v, ".")
	if _, err := strconv.ParseUint(major, 10, 32); err != nil || !ok || rest == "" {
		return errs.Newf(errs.Invalid, "ociVersion %q is not a version", v)
	}
	if major != "1" {
		return errs.Newf(errs.Unsupported, "ociVersion %s is not supported: only 1.x is", v)
	}
	return nil
}

func checkProcess(p *specs.Process) error {
	switch {
	case p.Cwd == "":
		return errs.New(errs.Invalid, "cwd property must not be empty")
	case !path.IsAbs(p.Cwd):
		return errs.New(errs.Invalid, "cwd must be an absolute path")
	case len(p.Args) == 0:
		return errs.New(errs.Invalid, "args must not be empty")
	}
	seen := make(map[string]bool)
	for _, l := range p.Rlimits {
		if seen[l.Type] {
			return errs.Newf(errs.Invalid, "rlimit %s is given twice", l.Type)
		}
		seen[l.Type] = true
	}
	return nil
}

func decodeProcess(data []byte) (*specs.Process, error) {
	var p specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	return &p, checkProcess(&p)
}
