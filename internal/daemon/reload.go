package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// process is how the daemon was called: what a reload of its file goes by.
type process struct {
	args    []string
	flags   *pflag.FlagSet // as they were at start, with the file's values
	level   *slog.LevelVar
	manager *manager
	hup     <-chan os.Signal
}

// parse reads a command line and the file that it names.
func parse(args []string) (*Config, *pflag.FlagSet, error) {
	c := DefaultConfig()
	fs := pflag.NewFlagSet("skiffd", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := fs.Parse(args); err != nil {
		return nil, nil, errs.With(errs.Invalid, err)
	}
	if err := LoadFile(c.ConfigFile, fs); err != nil {
		return nil, nil, err
	}
	return c, fs, c.Finish()
}

// reloadable are the flags whose keys count from a reload on; the others need a
// restart.
func reloadable(flag string) bool {
	return slices.Contains([]string{
		"debug", "label", "insecure-registry", "registry-mirror", "max-concurrent-downloads", "max-concurrent-uploads",
		"max-download-attempts", "shutdown-timeout", "default-stop-timeout", "add-runtime", "default-runtime", "feature",
		"live-restore", "default-shm-size", "default-ipc-mode", "default-cgroupns-mode",
	}, flag)
}

// reloaded is c with what next may change of it.
func (c *Config) reloaded(next *Config) *Config {
	out := *c
	out.Debug, out.Labels = next.Debug, next.Labels
	out.InsecureRegistries, out.Mirrors = next.InsecureRegistries, next.Mirrors
	out.MaxDownloads, out.MaxUploads, out.MaxAttempts = next.MaxDownloads, next.MaxUploads, next.MaxAttempts
	out.ShutdownTimeout, out.StopTimeout, out.LiveRestore = next.ShutdownTimeout, next.StopTimeout, next.LiveRestore
	out.Runtimes, out.DefaultRuntime = next.Runtimes, next.DefaultRuntime
	out.ShmSize, out.IpcMode, out.CgroupnsMode = next.ShmSize, next.IpcMode, next.CgroupnsMode
	out.Features = next.Features
	return &out
}

// needRestart lists, by their keys, the settings that differ from those at start
// and that a reload cannot change.
func needRestart(start, next *pflag.FlagSet) []string {
	var out []string
	next.VisitAll(func(f *pflag.Flag) {
		was := start.Lookup(f.Name)
		if was == nil || reloadable(f.Name) || was.Value.String() == f.Value.String() {
			return
		}
		out = append(out, keyOf(f.Name))
	})
	if on := func(fs *pflag.FlagSet) bool { return cdiOn(fs) }; on(start) != on(next) {
		out = append(out, "features (cdi)")
	}
	return out
}

func cdiOn(fs *pflag.FlagSet) bool {
	f, ok := fs.Lookup("feature").Value.(featuresFlag)
	on, set := f["cdi"]
	return !ok || !set || on
}

// keyOf is the key of daemon.json for a flag.
func keyOf(flag string) string {
	keys := make([]string, 0, 1)
	for key, name := range fileKeys {
		if name == flag {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return flag
	}
	return slices.Max(keys) // the plural, of two
}

// reload reads daemon.json again and changes, all at once, what can change while
// the daemon runs. With a file that is wrong nothing changes.
func (d *daemon) reload(ctx context.Context) {
	d.log.InfoContext(ctx, "got signal to reload the configuration", "file", d.c.ConfigFile)
	d.p.manager.tell(d.log, managerReloads())
	defer d.p.manager.tell(d.log, managerReady)
	next, flags, err := parse(d.p.args)
	if err == nil {
		err = d.apply(d.conf.Load().reloaded(next))
	}
	if err != nil {
		d.log.ErrorContext(ctx, "cannot reload the configuration: it stays as it was", "err", err)
		return
	}
	if keys := needRestart(d.p.flags, flags); len(keys) > 0 {
		d.log.WarnContext(ctx, "these settings cannot change without a restart of the daemon: they stay as they were", "keys", keys)
	}
	attrs := d.conf.Load().attributes()
	d.log.InfoContext(ctx, "reloaded the configuration", "settings", attrs)
	if name, err := os.Hostname(); err == nil {
		attrs["name"] = name
	}
	d.events.Publish(apievents.DaemonEventType, apievents.ActionReload, d.id, attrs)
}

// apply puts a configuration in force; what can fail comes first.
func (d *daemon) apply(c *Config) error {
	registries, err := d.remote.Prepare(c.registries())
	if err != nil {
		return err
	}
	registries()
	d.images.SetLimits(c.transferLimits())
	d.containers.Reconfigure(c.live(d.containers.Live()))
	d.system.Reconfigure(d.systemConfig(c))
	d.p.level.Set(c.level())
	d.conf.Store(c)
	return nil
}

// attributes are those of docker's event.
func (c *Config) attributes() map[string]string {
	list := func(v []string) string {
		if v == nil {
			v = []string{}
		}
		text, _ := json.Marshal(v) // of strings: never fails
		return string(text)
	}
	var runtimes []string
	all := c.runtimes()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		runtimes = append(runtimes, name+":"+all[name].Path)
	}
	return map[string]string{
		"debug": strconv.FormatBool(c.Debug), "labels": list(c.Labels),
		"insecure-registries": list(c.InsecureRegistries), "registry-mirrors": list(c.Mirrors),
		"max-concurrent-downloads": strconv.Itoa(c.MaxDownloads), "max-concurrent-uploads": strconv.Itoa(c.MaxUploads),
		"max-download-attempts": strconv.Itoa(c.MaxAttempts), "shutdown-timeout": strconv.Itoa(c.ShutdownTimeout),
		"default-stop-timeout": strconv.Itoa(c.StopTimeout), "live-restore": strconv.FormatBool(c.LiveRestore),
		"runtimes": strings.Join(runtimes, " "), "default-runtime": c.defaultRuntime(),
		"default-shm-size": strconv.FormatInt(c.ShmSize, 10), "default-ipc-mode": c.IpcMode, "default-cgroupns-mode": c.cgroupnsMode(),
		"features": fmt.Sprint(c.Features),
	}
}

func (c *Config) cgroupnsMode() string {
	if c.CgroupnsMode == "" {
		return "private"
	}
	return c.CgroupnsMode
}
