package system

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"github.com/skiff-containers/skiff/internal/engine/events"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// Deps are the services asked. Each may be nil: then there is nothing of it.
type Deps struct {
	Containers Containers
	Images     Images
	Volumes    Volumes
	BuildCache BuildCache
	Devices    Devices
	Events     *events.Bus
	Log        *slog.Logger // required
}

// Service tells of the engine.
type Service struct {
	conf atomic.Pointer[Config]
	d    Deps
	host fs.FS // the host's root; another one in tests
}

// New returns the service.
func New(c Config, d Deps) *Service {
	s := &Service{d: d, host: os.DirFS("/")}
	s.Reconfigure(c)
	return s
}

// Reconfigure changes what is told from now on.
func (s *Service) Reconfigure(c Config) {
	if c.CgroupDriver == "" {
		c.CgroupDriver = "cgroupfs"
	}
	if c.SeccompProfile == "" {
		c.SeccompProfile = "builtin"
	}
	s.conf.Store(&c)
}

// Events subscribes to the engine's events.
func (s *Service) Events(_ context.Context, since, until time.Time, f filter.Set) (EventReader, error) {
	return s.d.Events.Subscribe(events.Query{Since: since, Until: until, Filters: f})
}

// Version tells what runs here.
func (s *Service) Version(context.Context) (*system.VersionResponse, error) {
	c, kernel := s.conf.Load(), readLine(s.host, "proc/sys/kernel/osrelease")
	engine := system.ComponentVersion{
		Name:    "Engine",
		Version: c.Version,
		Details: map[string]string{
			"GitCommit":     c.Commit,
			"GoVersion":     runtime.Version(),
			"Os":            runtime.GOOS,
			"Arch":          runtime.GOARCH,
			"BuildTime":     c.BuildTime,
			"KernelVersion": kernel,
			"Experimental":  strconv.FormatBool(c.Experimental),
		},
	}
	return &system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Skiff"},
		Version:       c.Version,
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		Components:    append([]system.ComponentVersion{engine}, c.Components...),
		GitCommit:     c.Commit,
		GoVersion:     runtime.Version(),
		KernelVersion: kernel,
		Experimental:  c.Experimental,
		BuildTime:     c.BuildTime,
	}, nil
}

// Info tells what this engine and its host can do. What cannot be found out is
// logged and left out: people look here when something is wrong.
func (s *Service) Info(ctx context.Context) (*system.Info, error) {
	c, h := s.conf.Load(), inspectHost(s.host)
	name, err := os.Hostname()
	if err != nil {
		s.d.Log.WarnContext(ctx, "host name not known", "err", err)
	}
	i := &system.Info{
		ID:                  c.ID,
		Name:                name,
		ServerVersion:       c.Version,
		DockerRootDir:       c.Root,
		Debug:               c.Debug,
		ExperimentalBuild:   c.Experimental,
		Labels:              list(c.Labels),
		Driver:              c.Driver,
		DriverStatus:        c.DriverStatus,
		LoggingDriver:       c.LoggingDriver,
		Plugins:             system.PluginsInfo{Volume: c.VolumeDrivers, Network: c.NetworkDrivers, Log: c.LogDrivers},
		SystemTime:          time.Now().Format(time.RFC3339Nano),
		NFd:                 openFiles(s.host),
		NGoroutines:         runtime.NumGoroutine(),
		KernelVersion:       h.kernel,
		OperatingSystem:     h.os,
		OSVersion:           h.osVersion,
		OSType:              runtime.GOOS,
		Architecture:        machine(),
		NCPU:                runtime.NumCPU(),
		MemTotal:            h.memory,
		IPv4Forwarding:      h.forwarding,
		CgroupDriver:        c.CgroupDriver,
		CgroupVersion:       strconv.Itoa(h.cgroup.version),
		MemoryLimit:         h.cgroup.memory,
		SwapLimit:           h.cgroup.swap,
		OomKillDisable:      h.cgroup.oomControl,
		CPUCfsPeriod:        h.cgroup.quota,
		CPUCfsQuota:         h.cgroup.quota,
		CPUShares:           h.cgroup.shares,
		CPUSet:              h.cgroup.cpuset,
		PidsLimit:           h.cgroup.pids,
		SecurityOptions:     securityOptions(c, h),
		IndexServerAddress:  "https://index.docker.io/v1/",
		RegistryConfig:      registryConfig(c.InsecureRegistries, c.Mirrors),
		HTTPProxy:           MaskURL(c.HTTPProxy),
		HTTPSProxy:          MaskURL(c.HTTPSProxy),
		NoProxy:             c.NoProxy,
		Runtimes:            map[string]system.RuntimeWithStatus{},
		DefaultRuntime:      c.DefaultRuntime,
		InitBinary:          c.InitBinary,
		InitCommit:          system.Commit{ID: c.Commit},
		RuncCommit:          system.Commit{ID: "N/A"},
		ContainerdCommit:    system.Commit{ID: "N/A"},
		Swarm:               swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled:  c.LiveRestore,
		DefaultAddressPools: c.AddressPools,
		FirewallBackend:     c.Firewall,
		CDISpecDirs:         []string{},
		Warnings:            append(h.warnings(), c.Warnings...),
	}
	if s.d.Devices != nil {
		i.CDISpecDirs = append(i.CDISpecDirs, s.d.Devices.Dirs()...)
		for _, name := range s.d.Devices.List() {
			i.DiscoveredDevices = append(i.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: name})
		}
	}
	for name, rt := range c.Runtimes {
		i.Runtimes[name] = system.RuntimeWithStatus{Runtime: rt}
	}
	if s.d.Events != nil {
		i.NEventsListener = s.d.Events.Listeners()
	}
	return i, s.count(ctx, i)
}

func (s *Service) count(ctx context.Context, i *system.Info) (err error) {
	if s.d.Containers != nil {
		i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, err = s.d.Containers.States(ctx)
		if err != nil {
			return err
		}
		i.Containers = i.ContainersRunning + i.ContainersPaused + i.ContainersStopped
	}
	if s.d.Images != nil {
		i.Images, err = s.d.Images.Count(ctx)
	}
	return err
}

func securityOptions(c *Config, h host) []string {
	var o []string
	if h.apparmor {
		o = append(o, "name=apparmor")
	}
	if h.seccomp {
		o = append(o, "name=seccomp,profile="+c.SeccompProfile)
	}
	if c.UserNS {
		o = append(o, "name=userns")
	}
	if h.cgroupns && h.cgroup.version == 2 { // private by default only there
		o = append(o, "name=cgroupns")
	}
	if c.NoNewPrivileges {
		o = append(o, "name=no-new-privileges")
	}
	return list(o)
}

// machine is uname's name of the processor.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "386":
		return "i686"
	case "arm":
		return "armv7l"
	}
	return runtime.GOARCH
}

// MaskURL hides who a proxy is asked as, in docker's way.
func MaskURL(u string) string {
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok {
		scheme, rest = "", u
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndex(rest[:end], "@")
	if at < 0 {
		return u
	}
	masked := "xxxxx:xxxxx" + rest[at:]
	if scheme != "" {
		masked = scheme + "://" + masked
	}
	return masked
}

func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}
