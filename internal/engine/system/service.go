package system

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
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
	c    Config
	d    Deps
	host fs.FS // the host's root; another one in tests
}

// New returns the service.
func New(c Config, d Deps) *Service {
	if c.CgroupDriver == "" {
		c.CgroupDriver = "cgroupfs"
	}
	if c.SeccompProfile == "" {
		c.SeccompProfile = "builtin"
	}
	return &Service{c, d, os.DirFS("/")}
}

// Events subscribes to the engine's events.
func (s *Service) Events(_ context.Context, since, until time.Time, f filter.Set) (EventReader, error) {
	return s.d.Events.Subscribe(events.Query{Since: since, Until: until, Filters: f})
}

// Version tells what runs here.
func (s *Service) Version(context.Context) (*system.VersionResponse, error) {
	kernel := readLine(s.host, "proc/sys/kernel/osrelease")
	engine := system.ComponentVersion{
		Name:    "Engine",
		Version: s.c.Version,
		Details: map[string]string{
			"GitCommit":     s.c.Commit,
			"GoVersion":     runtime.Version(),
			"Os":            runtime.GOOS,
			"Arch":          runtime.GOARCH,
			"BuildTime":     s.c.BuildTime,
			"KernelVersion": kernel,
			"Experimental":  strconv.FormatBool(s.c.Experimental),
		},
	}
	return &system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Skiff"},
		Version:       s.c.Version,
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		Components:    append([]system.ComponentVersion{engine}, s.c.Components...),
		GitCommit:     s.c.Commit,
		GoVersion:     runtime.Version(),
		KernelVersion: kernel,
		Experimental:  s.c.Experimental,
		BuildTime:     s.c.BuildTime,
	}, nil
}

// Info tells what this engine and its host can do. What cannot be found out is
// logged and left out: people look here when something is wrong.
func (s *Service) Info(ctx context.Context) (*system.Info, error) {
	h := inspectHost(s.host)
	name, err := os.Hostname()
	if err != nil {
		s.d.Log.WarnContext(ctx, "host name not known", "err", err)
	}
	i := &system.Info{
		ID:                  s.c.ID,
		Name:                name,
		ServerVersion:       s.c.Version,
		DockerRootDir:       s.c.Root,
		Debug:               s.c.Debug,
		ExperimentalBuild:   s.c.Experimental,
		Labels:              list(s.c.Labels),
		Driver:              s.c.Driver,
		DriverStatus:        s.c.DriverStatus,
		LoggingDriver:       s.c.LoggingDriver,
		Plugins:             system.PluginsInfo{Volume: s.c.VolumeDrivers, Network: s.c.NetworkDrivers, Log: s.c.LogDrivers},
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
		CgroupDriver:        s.c.CgroupDriver,
		CgroupVersion:       strconv.Itoa(h.cgroup.version),
		MemoryLimit:         h.cgroup.memory,
		SwapLimit:           h.cgroup.swap,
		OomKillDisable:      h.cgroup.oomControl,
		CPUCfsPeriod:        h.cgroup.quota,
		CPUCfsQuota:         h.cgroup.quota,
		CPUShares:           h.cgroup.shares,
		CPUSet:              h.cgroup.cpuset,
		PidsLimit:           h.cgroup.pids,
		SecurityOptions:     s.securityOptions(h),
		IndexServerAddress:  "https://index.docker.io/v1/",
		RegistryConfig:      registryConfig(s.c.InsecureRegistries, s.c.Mirrors),
		HTTPProxy:           maskURL(s.c.HTTPProxy),
		HTTPSProxy:          maskURL(s.c.HTTPSProxy),
		NoProxy:             s.c.NoProxy,
		Runtimes:            map[string]system.RuntimeWithStatus{},
		DefaultRuntime:      s.c.DefaultRuntime,
		InitBinary:          s.c.InitBinary,
		InitCommit:          system.Commit{ID: s.c.Commit},
		RuncCommit:          system.Commit{ID: "N/A"},
		ContainerdCommit:    system.Commit{ID: "N/A"},
		Swarm:               swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled:  true, // the shim keeps containers, not the daemon
		DefaultAddressPools: s.c.AddressPools,
		FirewallBackend:     s.c.Firewall,
		CDISpecDirs:         []string{},
		Warnings:            append(h.warnings(), s.c.Warnings...),
	}
	if s.d.Devices != nil {
		i.CDISpecDirs = append(i.CDISpecDirs, s.d.Devices.Dirs()...)
		for _, name := range s.d.Devices.List() {
			i.DiscoveredDevices = append(i.DiscoveredDevices, system.DeviceInfo{Source: "cdi", ID: name})
		}
	}
	for name, rt := range s.c.Runtimes {
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

func (s *Service) securityOptions(h host) []string {
	var o []string
	if h.apparmor {
		o = append(o, "name=apparmor")
	}
	if h.seccomp {
		o = append(o, "name=seccomp,profile="+s.c.SeccompProfile)
	}
	if h.selinux {
		o = append(o, "name=selinux")
	}
	if s.c.UserNS {
		o = append(o, "name=userns")
	}
	if h.cgroupns && h.cgroup.version == 2 { // private by default only there
		o = append(o, "name=cgroupns")
	}
	if s.c.NoNewPrivileges {
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

// maskURL hides the password of a proxy.
func maskURL(u string) string {
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok {
		scheme, rest = "", u
	}
	user, host, ok := strings.Cut(rest, "@")
	if !ok || user == "" {
		return u
	}
	masked := "xxxxx:xxxxx@" + host
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
