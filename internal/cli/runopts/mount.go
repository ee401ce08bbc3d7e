package runopts

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// Mounts is the flag --mount.
type Mounts struct{ List []mount.Mount }

// Type is what help shows.
func (m *Mounts) Type() string { return "mount" }

func (m *Mounts) String() string {
	if m == nil || len(m.List) == 0 {
		return ""
	}
	out := make([]string, 0, len(m.List))
	for _, x := range m.List {
		out = append(out, fmt.Sprintf("%s %s %s", x.Type, x.Source, x.Target))
	}
	return strings.Join(out, ", ")
}

// Set parses one mount and adds it.
func (m *Mounts) Set(v string) error {
	one, err := parseMount(v)
	if err != nil {
		return err
	}
	m.List = append(m.List, one)
	return nil
}

func parseMount(v string) (mount.Mount, error) {
	out := mount.Mount{Type: mount.TypeVolume}
	fields, err := csv.NewReader(strings.NewReader(strings.TrimSpace(v))).Read()
	if err != nil {
		return out, err
	}
	for _, f := range fields {
		k, val, has := strings.Cut(f, "=")
		if err := mountField(&out, strings.ToLower(strings.TrimSpace(k)), val, has, f); err != nil {
			return out, err
		}
	}
	return out, checkMount(&out)
}

// mountField handles the keys that every type has, then asks for the type's.
func mountField(m *mount.Mount, k, val string, has bool, field string) error {
	switch k {
	case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src":
		on := true
		if has {
			var err error
			if on, err = boolean(k, val); err != nil {
				return err
			}
		}
		switch k {
		case "readonly", "ro":
			m.ReadOnly = on
		case "volume-nocopy":
			volumeOptions(m).NoCopy = on
		case "bind-nonrecursive":
			return errors.New("bind-nonrecursive is deprecated, use bind-recursive=disabled instead")
		case "bind-create-src":
			bindOptions(m).CreateMountpoint = on
		}
		return nil
	}
	if !has {
		return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
	}
	switch k {
	case "type":
		m.Type = mount.Type(strings.ToLower(val))
	case "source", "src":
		m.Source = val
		if strings.HasPrefix(val, "."+string(filepath.Separator)) || val == "." || strings.HasPrefix(val, "..") {
			if abs, err := filepath.Abs(val); err == nil {
				m.Source = abs
			}
		}
	case "target", "dst", "destination":
		m.Target = val
	case "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(val))
	default:
		return mountOption(m, k, val, field)
	}
	return nil
}

func mountOption(m *mount.Mount, k, val, field string) error {
	switch k {
	case "bind-propagation":
		bindOptions(m).Propagation = mount.Propagation(strings.ToLower(val))
	case "bind-recursive":
		return bindRecursive(m, val)
	case "volume-subpath":
		volumeOptions(m).Subpath = val
	case "volume-driver":
		volumeDriver(m).Name = val
	case "volume-opt":
		d := volumeDriver(m)
		if d.Options == nil {
			d.Options = map[string]string{}
		}
		name, v, _ := strings.Cut(val, "=")
		d.Options[name] = v
	case "volume-label":
		o := volumeOptions(m)
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		name, v, _ := strings.Cut(val, "=")
		o.Labels[name] = v
	case "image-subpath":
		if m.ImageOptions == nil {
			m.ImageOptions = &mount.ImageOptions{}
		}
		m.ImageOptions.Subpath = val
	case "tmpfs-size":
		n, err := units.RAMInBytes(val)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", k, val)
		}
		tmpfsOptions(m).SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(val, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", k, val)
		}
		tmpfsOptions(m).Mode = os.FileMode(n)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s'", k, field)
	}
	return nil
}

func bindRecursive(m *mount.Mount, val string) error {
	o := bindOptions(m)
	switch val {
	case "enabled":
	case "disabled":
		o.NonRecursive = true
	case "writable":
		o.ReadOnlyNonRecursive = true
	case "readonly":
		o.ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf(`invalid value for bind-recursive: %s (must be "enabled", "disabled", "writable", or "readonly")`, val)
	}
	return nil
}

func checkMount(m *mount.Mount) error {
	if m.Target == "" {
		return errors.New("target is required")
	}
	for _, c := range []struct {
		set  bool
		kind mount.Type
		name string
	}{
		{m.VolumeOptions != nil, mount.TypeVolume, "volume-*"},
		{m.BindOptions != nil, mount.TypeBind, "bind-*"},
		{m.TmpfsOptions != nil, mount.TypeTmpfs, "tmpfs-*"},
		{m.ImageOptions != nil, mount.TypeImage, "image-*"},
	} {
		if c.set && m.Type != c.kind {
			return fmt.Errorf("cannot mix '%s' options with mount type '%s'", c.name, m.Type)
		}
	}
	if b := m.BindOptions; b != nil {
		if b.ReadOnlyNonRecursive && !m.ReadOnly {
			return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		}
		if b.ReadOnlyForceRecursive {
			if !m.ReadOnly {
				return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
			}
			if b.Propagation != mount.PropagationRPrivate {
				return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
			}
		}
	}
	return nil
}

// boolean takes what shells of users write: true, false, 1, 0.
func boolean(k, v string) (bool, error) {
	switch v {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, fmt.Errorf(`invalid value for '%s': invalid boolean value (%q): must be one of "true", "1", "false", or "0"`, k, v)
}

func bindOptions(m *mount.Mount) *mount.BindOptions {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	return m.BindOptions
}

func volumeOptions(m *mount.Mount) *mount.VolumeOptions {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{}
	}
	return m.VolumeOptions
}

func volumeDriver(m *mount.Mount) *mount.Driver {
	o := volumeOptions(m)
	if o.DriverConfig == nil {
		o.DriverConfig = &mount.Driver{}
	}
	return o.DriverConfig
}

func tmpfsOptions(m *mount.Mount) *mount.TmpfsOptions {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return m.TmpfsOptions
}
