//go:build linux

package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skiff-containers/skiff/internal/sys/cgroup"
)

const configName = "config.json"

func (a *app) spec(fs *flag.FlagSet) func(context.Context, []string) error {
	bundle, rootless := ".", false
	stringFlag(fs, &bundle, "bundle", "b", "directory to write it to")
	fs.BoolVar(&rootless, "rootless", false, "for who is not root")
	return func(context.Context, []string) error {
		sys, err := cgroup.Detect()
		s := exampleSpec(err == nil && sys.Unified())
		if rootless {
			withoutRoot(s, os.Geteuid(), os.Getegid())
		}
		data, err := json.MarshalIndent(s, "", "\t")
		if err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(bundle, configName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("file %s exists. Remove it first", configName)
		}
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		return errors.Join(err, f.Close())
	}
}

// exampleSpec is a shell in a confined container: where runc's users start too.
func exampleSpec(unified bool) *specs.Spec {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	s := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "skiff",
		Process: &specs.Process{
			Terminal: true, Args: []string{"sh"}, Cwd: "/", NoNewPrivileges: true,
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
		},
		Linux: &specs.Linux{
			Resources:  &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
				"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if unified {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	for _, m := range []struct{ to, kind, source, options string }{
		{"/proc", "proc", "proc", ""},
		{"/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"},
		{"/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"},
		{"/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"},
		{"/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"},
		{"/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"},
	} {
		mount := specs.Mount{Destination: m.to, Type: m.kind, Source: m.source}
		if m.options != "" {
			mount.Options = strings.Split(m.options, ",")
		}
		s.Mounts = append(s.Mounts, mount)
	}
	return s
}

// withoutRoot leaves out what needs real root, and maps the user to root.
func withoutRoot(s *specs.Spec, uid, gid int) {
	var spaces []specs.LinuxNamespace
	for _, n := range s.Linux.Namespaces {
		if n.Type != specs.NetworkNamespace {
			spaces = append(spaces, n)
		}
	}
	s.Linux.Namespaces = append(spaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(uid), Size: 1}} //nolint:gosec // an id
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(gid), Size: 1}} //nolint:gosec // an id
	s.Linux.Resources = nil
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Destination == "/sys" { // it belongs to the host's network namespace
			*m = specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
		}
		var keep []string
		for _, o := range m.Options {
			if !strings.HasPrefix(o, "uid=") && !strings.HasPrefix(o, "gid=") {
				keep = append(keep, o)
			}
		}
		m.Options = keep
	}
}
