package runopts

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
)

// storageFlags are volumes, mounts and the writable layer.
type storageFlags struct {
	volumes     listFlag
	mounts      Mounts
	tmpfs       listFlag
	driver      string
	volumesFrom listFlag
	storageOpts listFlag
}

func (s *storageFlags) register(fs *pflag.FlagSet) {
	fs.VarP(&s.volumes, "volume", "v", "Mount a volume or a directory ([SOURCE:]TARGET[:OPTIONS])")
	fs.Var(&s.mounts, "mount", "Mount something (type=...,source=...,target=...)")
	fs.Var(&s.tmpfs, "tmpfs", "Mount a tmpfs (TARGET[:OPTIONS])")
	fs.StringVar(&s.driver, "volume-driver", "", "Volume driver")
	fs.Var(&s.volumesFrom, "volumes-from", "Mount the volumes of another container")
	fs.Var(&s.storageOpts, "storage-opt", "Option of the storage driver (key=value)")
}

func (s *storageFlags) apply(_ *pflag.FlagSet, d *Document) error {
	for _, v := range s.volumes.Values {
		target, bind, err := volume(v)
		if err != nil {
			return err
		}
		if bind != "" {
			d.Host.Binds = append(d.Host.Binds, bind)
			continue
		}
		if d.Config.Volumes == nil {
			d.Config.Volumes = map[string]struct{}{}
		}
		d.Config.Volumes[target] = struct{}{}
	}
	for _, t := range s.tmpfs.Values {
		if d.Host.Tmpfs == nil {
			d.Host.Tmpfs = map[string]string{}
		}
		target, o, _ := strings.Cut(t, ":")
		d.Host.Tmpfs[target] = o
	}
	for _, o := range s.storageOpts.Values {
		if !strings.Contains(o, "=") {
			return fmt.Errorf("invalid storage option")
		}
	}
	if len(s.storageOpts.Values) > 0 {
		d.Host.StorageOpt = s.storageOpts.Pairs()
	}
	d.Host.Mounts = s.mounts.List
	d.Host.VolumeDriver = s.driver
	d.Host.VolumesFrom = s.volumesFrom.Values
	return nil
}

// volume understands -v far enough to tell an anonymous volume (target) from
// everything else (bind), whose last word is the daemon's. A source that starts
// with a dot is relative to our directory, which the daemon does not know.
func volume(v string) (target, bind string, err error) {
	if strings.TrimSpace(v) == "" {
		return "", "", fmt.Errorf("invalid volume specification: '%s'", v)
	}
	source, rest, has := cutSource(v)
	if !has {
		return v, "", nil
	}
	if source == "" || rest == "" {
		return "", "", fmt.Errorf("invalid volume specification: '%s'", v)
	}
	if strings.HasPrefix(source, ".") {
		abs, err := filepath.Abs(source)
		if err != nil {
			return "", "", err
		}
		source = abs
	}
	return "", source + ":" + rest, nil
}

// cutSource cuts at the first colon that does not follow a drive letter.
func cutSource(v string) (source, rest string, has bool) {
	from := 0
	if runtime.GOOS == "windows" && len(v) > 2 && v[1] == ':' && (v[2] == '\\' || v[2] == '/') {
		from = 2
	}
	i := strings.IndexByte(v[from:], ':')
	if i < 0 {
		return v, "", false
	}
	return v[:from+i], v[from+i+1:], true
}
