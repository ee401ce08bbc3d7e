package spec

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// MountPoint is a mount as it was asked for, in any of docker's ways: -v,
// --mount, --tmpfs, or VOLUME of the image. The engine resolves it to a [Mount].
type MountPoint struct {
	Type   mount.Type
	Target string
	Source string // bind: the host's path; image: its reference
	Name   string // volume: its name; "" is a new anonymous one

	Driver             string
	DriverOpts, Labels map[string]string
	NoCopy             bool // no copy-up into an empty volume
	Subpath            string
	CreateSource       bool // bind: make the directory if there is none

	Raw          bool   // from -v
	Mode         string // -v's third part, as inspect shows it
	ReadOnly     bool
	Propagation  mount.Propagation
	Propagates   bool   // as was asked for, not by default
	TmpfsOptions string // "size=1m,mode=755"

	NonRecursive, ReadOnlyNonRecursive, ReadOnlyForceRecursive bool
}

var propagations = mount.Propagations

// bindMode is the third part of -v, parsed.
type bindMode struct {
	readOnly, noCopy bool
	propagation      mount.Propagation
}

// parseMode accepts at most one word of each sort: rw|ro, z|Z, a propagation,
// nocopy, a consistency.
func parseMode(mode string) (bindMode, bool) {
	var out bindMode
	if mode == "" {
		return out, true
	}
	var seen [5]bool
	for o := range strings.SplitSeq(mode, ",") {
		sort := 0
		switch {
		case o == "rw":
		case o == "ro":
			out.readOnly = true
		case o == "z" || o == "Z": // an SELinux label: nothing to do without SELinux
			sort = 1
		case slices.Contains(propagations, mount.Propagation(o)):
			sort, out.propagation = 2, mount.Propagation(o)
		case o == "nocopy":
			sort, out.noCopy = 3, true
		case o == "consistent" || o == "cached" || o == "delegated": // for file sharing with a VM
			sort = 4
		default:
			return out, false
		}
		if seen[sort] {
			return out, false
		}
		seen[sort] = true
	}
	return out, true
}

// ParseBind parses -v's "[source:]target[:mode]".
func ParseBind(raw, volumeDriver string) (MountPoint, error) {
	bad := fmt.Sprintf("invalid volume specification: '%s'", raw)
	parts := strings.SplitN(raw, ":", 4)
	var m mount.Mount
	mode := ""
	switch {
	case parts[0] == "" || len(parts) > 3:
		return MountPoint{}, errs.New(errs.Invalid, bad)
	case len(parts) == 1:
		m.Target = parts[0]
	default:
		m.Source, m.Target = parts[0], parts[1]
		if _, isMode := parseMode(m.Target); len(parts) == 2 && isMode {
			return MountPoint{}, errs.New(errs.Invalid, bad) // a volume without a source takes no mode
		}
		if len(parts) == 3 {
			mode = parts[2]
		}
	}
	bm, ok := parseMode(mode)
	if !ok {
		return MountPoint{}, errs.Newf(errs.Invalid, `invalid mode: %s`, mode)
	}
	m.ReadOnly = bm.readOnly
	m.Type = mount.TypeVolume
	if path.IsAbs(m.Source) {
		m.Type = mount.TypeBind
		m.BindOptions = &mount.BindOptions{Propagation: bm.propagation, CreateMountpoint: true}
		if bm.noCopy {
			return MountPoint{}, errs.Newf(errs.Invalid, `%s: invalid mount config for type "bind": field VolumeOptions must not be specified`, bad)
		}
	} else {
		m.VolumeOptions = &mount.VolumeOptions{NoCopy: bm.noCopy}
		if volumeDriver != "" {
			m.VolumeOptions.DriverConfig = &mount.Driver{Name: volumeDriver}
		}
		if bm.propagation != "" {
			return MountPoint{}, errs.Newf(errs.Invalid, `%s: invalid mount config for type "volume": field BindOptions must not be specified`, bad)
		}
	}
	p, err := ParseMount(m)
	if err != nil {
		return p, errs.Newf(errs.Invalid, "%s: %w", bad, err)
	}
	p.Raw, p.Mode = true, mode
	return p, nil
}

// ParseMount checks and converts an entry of HostConfig.Mounts. Whether a
// bind's source exists is for the caller to see.
func ParseMount(m mount.Mount) (MountPoint, error) {
	p := MountPoint{Type: m.Type, Target: path.Clean(m.Target), ReadOnly: m.ReadOnly}
	if err := fillMount(&p, m); err != nil {
		return MountPoint{}, errs.Newf(errs.Invalid, "invalid mount config for type %q: %w", m.Type, err)
	}
	return p, nil
}

func fillMount(p *MountPoint, m mount.Mount) error {
	if err := checkOptionsOf(m); err != nil {
		return err
	}
	if m.Target == "" {
		return errors.New("field Target must not be empty")
	}
	if err := checkTarget(m.Target); err != nil {
		return err
	}
	switch m.Type {
	case mount.TypeBind:
		return fillBind(p, m)
	case mount.TypeVolume:
		return fillVolume(p, m)
	case mount.TypeTmpfs:
		if m.Source != "" {
			return errors.New("field Source must not be specified")
		}
		var err error
		p.TmpfsOptions, err = tmpfsText(m.TmpfsOptions, m.ReadOnly)
		return err
	case mount.TypeImage:
		if m.Source == "" {
			return errors.New("field Source must not be empty")
		}
		p.Source = m.Source
		if m.ImageOptions != nil {
			p.Subpath = m.ImageOptions.Subpath
		}
		return checkSubpath(p.Subpath)
	case mount.TypeCluster, mount.TypeNamedPipe:
		return errors.New("not supported on this host")
	}
	return errors.New("mount type unknown")
}

func checkOptionsOf(m mount.Mount) error {
	switch {
	case m.Type != mount.TypeBind && m.BindOptions != nil:
		return errors.New("field BindOptions must not be specified")
	case m.Type != mount.TypeVolume && m.VolumeOptions != nil:
		return errors.New("field VolumeOptions must not be specified")
	case m.Type != mount.TypeImage && m.ImageOptions != nil:
		return errors.New("field ImageOptions must not be specified")
	case m.Type != mount.TypeTmpfs && m.TmpfsOptions != nil:
		return errors.New("field TmpfsOptions must not be specified")
	case m.Type != mount.TypeCluster && m.ClusterOptions != nil:
		return errors.New("field ClusterOptions must not be specified")
	}
	return nil
}

func checkTarget(p string) error {
	if path.Clean(p) == "/" {
		return errors.New("invalid specification: destination can't be '/'")
	}
	return checkAbs(p)
}

func checkAbs(p string) error {
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
		return fmt.Errorf("invalid mount path: '%s' mount path must be absolute", p)
	}
	return nil
}

func checkSubpath(s string) error {
	if s != "" && !filepath.IsLocal(s) {
		return errors.New("subpath must be a relative path within the volume")
	}
	return nil
}

func fillBind(p *MountPoint, m mount.Mount) error {
	if m.Source == "" {
		return errors.New("field Source must not be empty")
	}
	if err := checkAbs(m.Source); err != nil {
		return err
	}
	p.Source = path.Clean(m.Source)
	p.Propagation = mount.PropagationRPrivate
	if o := m.BindOptions; o != nil {
		if o.Propagation != "" && !slices.Contains(propagations, o.Propagation) {
			return fmt.Errorf("invalid propagation mode: %s", o.Propagation)
		}
		switch {
		case o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive:
			return errors.New("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
		case o.ReadOnlyNonRecursive && !m.ReadOnly:
			return errors.New("mount options conflict: !ReadOnly && ReadOnlyNonRecursive")
		case o.ReadOnlyForceRecursive && !m.ReadOnly:
			return errors.New("mount options conflict: !ReadOnly && ReadOnlyForceRecursive")
		}
		p.Propagation, p.Propagates = cmp.Or(o.Propagation, p.Propagation), o.Propagation != ""
		p.CreateSource = o.CreateMountpoint
		p.NonRecursive = o.NonRecursive
		p.ReadOnlyNonRecursive, p.ReadOnlyForceRecursive = o.ReadOnlyNonRecursive, o.ReadOnlyForceRecursive
	}
	return nil
}

func fillVolume(p *MountPoint, m mount.Mount) error {
	p.Name = m.Source
	if o := m.VolumeOptions; o != nil {
		p.NoCopy, p.Subpath, p.Labels = o.NoCopy, o.Subpath, o.Labels
		if o.DriverConfig != nil {
			p.Driver, p.DriverOpts = o.DriverConfig.Name, o.DriverConfig.Options
		}
	}
	if p.Subpath != "" && p.Name == "" {
		return errors.New("must not set Subpath when using anonymous volumes")
	}
	return checkSubpath(p.Subpath)
}

// tmpfsText writes --mount type=tmpfs's options as those of --tmpfs.
func tmpfsText(o *mount.TmpfsOptions, readOnly bool) (string, error) {
	var out []string
	if readOnly {
		out = append(out, "ro")
	}
	if o == nil {
		return strings.Join(out, ","), nil
	}
	if o.Mode != 0 {
		out = append(out, fmt.Sprintf("mode=%o", o.Mode))
	}
	if o.SizeBytes < 0 {
		return "", fmt.Errorf("invalid tmpfs size: %d", o.SizeBytes)
	}
	if o.SizeBytes > 0 {
		out = append(out, fmt.Sprintf("size=%d", o.SizeBytes))
	}
	for _, opt := range o.Options {
		if len(opt) != 1 && len(opt) != 2 {
			return "", errors.New("invalid option array length")
		}
		if opt[0] != "exec" && opt[0] != "noexec" || len(opt) == 2 {
			return "", errors.New("invalid option: " + opt[0])
		}
		out = append(out, opt[0])
	}
	return strings.Join(out, ","), nil
}

// ParseVolumesFrom parses --volumes-from's "container[:mode]".
func ParseVolumesFrom(s string) (id string, readOnly bool, err error) {
	if s == "" {
		return "", false, errs.New(errs.Invalid, "volumes-from specification cannot be an empty string")
	}
	id, mode, _ := strings.Cut(s, ":")
	bm, ok := parseMode(mode)
	if !ok || bm.propagation != "" || bm.noCopy {
		return "", false, errs.Newf(errs.Invalid, "invalid mode: %s", mode)
	}
	return id, bm.readOnly, nil
}

// MountPoints collects all that a configuration mounts, --volumes-from apart:
// binds, mounts, tmpfs, then the image's VOLUMEs where nothing else lies. Two at
// one target are an error.
func MountPoints(c *container.Config, h *container.HostConfig) ([]MountPoint, error) {
	var out []MountPoint
	at := map[string]bool{}
	add := func(p MountPoint, err error) error {
		if err != nil {
			return err
		}
		if at[p.Target] {
			return errs.Newf(errs.Invalid, "Duplicate mount point: %s", p.Target)
		}
		at[p.Target] = true
		out = append(out, p)
		return nil
	}
	for _, raw := range h.Binds {
		if err := add(ParseBind(raw, h.VolumeDriver)); err != nil {
			return nil, err
		}
	}
	for _, m := range h.Mounts {
		if err := add(ParseMount(m)); err != nil {
			return nil, err
		}
	}
	for _, dest := range sortedKeys(h.Tmpfs) {
		p := MountPoint{Type: mount.TypeTmpfs, Target: path.Clean(dest), TmpfsOptions: h.Tmpfs[dest]}
		if err := checkTarget(dest); err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		if err := add(p, checkTmpfsOptions(h.Tmpfs[dest])); err != nil {
			return nil, err
		}
	}
	for _, dest := range sortedKeys(c.Volumes) {
		target := path.Clean(dest)
		if at[target] {
			continue
		}
		if err := checkTarget(dest); err != nil {
			return nil, errs.Newf(errs.Invalid, "invalid volume specification: '%s': %w", dest, err)
		}
		if err := add(MountPoint{Type: mount.TypeVolume, Target: target, Driver: h.VolumeDriver}, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// tmpfsWords and tmpfsKeys are what a tmpfs may be mounted with.
const (
	tmpfsWords = `ro rw exec noexec suid nosuid dev nodev sync async dirsync remount mand nomand atime noatime
diratime nodiratime relatime norelatime strictatime nostrictatime private rprivate slave rslave shared rshared
unbindable runbindable bind rbind defaults`
	tmpfsKeys = "mode uid gid size nr_inodes nr_blocks mpol"
)

func checkTmpfsOptions(text string) error {
	for o := range strings.SplitSeq(text, ",") {
		key, _, hasValue := strings.Cut(o, "=")
		known := tmpfsWords
		if hasValue {
			known = tmpfsKeys
		}
		if o != "" && !slices.Contains(strings.Fields(known), key) {
			return errs.Newf(errs.Invalid, "invalid tmpfs option [%q]", o)
		}
	}
	return nil
}
