package daemon

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"

	"github.com/moby/moby/api/types/container"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
	"github.com/skiff-containers/skiff/internal/logs/remote/fluentd"
	"github.com/skiff-containers/skiff/internal/logs/remote/gelf"
	"github.com/skiff-containers/skiff/internal/logs/remote/journald"
	"github.com/skiff-containers/skiff/internal/logs/remote/syslog"
	"github.com/skiff-containers/skiff/internal/runtime"
)

// logDrivers are the names for GET /info; like docker's list, without "none".
func logDrivers() []string {
	return []string{"fluentd", "gelf", "journald", logs.DriverJSONFile, logs.DriverLocal, "syslog"}
}

// remoteDriver is a log driver that sends logs somewhere.
type remoteDriver struct {
	validate func(opts map[string]string) error
	make     func(info *remote.Info, opts map[string]string) (*remote.Driver, error)
}

// remoteLogDriver finds the driver of a name; false for those that keep logs here.
func remoteLogDriver(name string) (remoteDriver, bool) {
	switch name {
	case "syslog":
		return remoteDriver{syslog.Validate, syslog.New}, true
	case "gelf":
		return remoteDriver{gelf.Validate, gelf.New}, true
	case "fluentd":
		return remoteDriver{fluentd.Validate, fluentd.New}, true
	case "journald":
		return remoteDriver{journald.Validate, func(info *remote.Info, _ map[string]string) (*remote.Driver, error) {
			return journald.New(info, journald.Socket)
		}}, true
	}
	return remoteDriver{}, false
}

// checkLogConfig checks a driver and its options as docker does, at create and
// when the daemon starts.
func checkLogConfig(name string, opts map[string]string) (runtime.Log, error) {
	switch name {
	case "splunk", "awslogs", "gcplogs", "logentries", "etwlogs":
		return runtime.Log{}, errs.Newf(errs.Unsupported, "logger: log driver '%s' is not supported: there are %v", name, logDrivers())
	}
	d, ok := remoteLogDriver(name)
	if !ok {
		return logs.ParseOptions(name, opts)
	}
	if err := logs.CheckCommon(opts); err != nil {
		return runtime.Log{}, err
	}
	if err := d.validate(driverOptions(opts)); err != nil {
		return runtime.Log{}, err
	}
	return logs.ParseCache(opts)
}

// driverOptions are those that are for the driver itself.
func driverOptions(opts map[string]string) map[string]string {
	own := maps.Clone(opts)
	maps.DeleteFunc(own, func(k, _ string) bool { return logs.Common(k) })
	return own
}

// ctrLogs is containers.LogStore over package logs.
type ctrLogs struct{ log *slog.Logger }

func (ctrLogs) Parse(c container.LogConfig, dir string, rec *containers.Record) (runtime.Log, error) {
	l, err := checkLogConfig(c.Type, c.Config)
	if err != nil {
		return l, err
	}
	switch l.Driver {
	case logs.DriverJSONFile:
		l.Path = filepath.Join(dir, rec.ID+"-json.log")
	case logs.DriverLocal:
		l.Path = filepath.Join(dir, "container.log")
	}
	info := logInfo(rec, c.Config, l.Path)
	if d, ok := remoteLogDriver(c.Type); ok {
		l.Sent = l.Path + ".sent"
		_, err := d.make(info, driverOptions(c.Config)) // a tag or expression that does not parse is told of now
		return l, err
	}
	l.Attrs, err = info.Attributes(nil)
	if err == nil && c.Config["tag"] != "" {
		l.Attrs["tag"], err = info.Tag("")
	}
	if len(l.Attrs) == 0 {
		l.Attrs = nil
	}
	return l, err
}

func logInfo(rec *containers.Record, opts map[string]string, path string) *remote.Info {
	return &remote.Info{
		Config: opts, ContainerID: rec.ID, ContainerName: "/" + rec.Name, ContainerEntrypoint: rec.Path, ContainerArgs: rec.Args,
		ContainerImageID: rec.ImageID, ContainerImageName: rec.Config.Image, ContainerCreated: rec.Created,
		ContainerEnv: rec.Config.Env, ContainerLabels: rec.Config.Labels, LogPath: path,
		DaemonName: "docker", // what templates made for docker compare with
	}
}

func (ctrLogs) Open(ctx context.Context, l runtime.Log, o logs.ReadOptions) (logs.Reader, error) {
	return logs.Open(ctx, l, o)
}

func (s ctrLogs) Forward(ctx context.Context, rec *containers.Record, start bool) (containers.LogForwarder, error) {
	name, opts := rec.HostConfig.LogConfig.Type, rec.HostConfig.LogConfig.Config
	d, ok := remoteLogDriver(name)
	if !ok {
		return nil, nil
	}
	driver, err := d.make(logInfo(rec, opts, rec.Log.Path), driverOptions(opts))
	if err != nil {
		return nil, err
	}
	var sink remote.Sink
	if start && !driver.Lazy {
		if sink, err = driver.Dial(ctx); err != nil {
			return nil, err
		}
	}
	f, err := remote.Forward(ctx, remote.Options{
		Log: rec.Log, Driver: driver, Sink: sink, Logger: s.log.With("container", rec.ID, "driver", name),
	})
	if err != nil && sink != nil {
		_ = sink.Close()
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// checkLog checks the daemon's own defaults.
func (c *Config) checkLog() error {
	if _, err := checkLogConfig(cmp.Or(c.LogDriver, logs.DriverLocal), c.LogOpts); err != nil {
		return fmt.Errorf("failed to set log opts: %w", err)
	}
	if c.LogDriver != "" && c.LogDriver != logs.DriverNone && !slices.Contains(logDrivers(), c.LogDriver) {
		return errs.Newf(errs.Invalid, "logger: no log driver named '%s' is registered", c.LogDriver)
	}
	return nil
}
