// Package runopts turns the flags of "run" and "create" into the documents
// that the Docker Engine API takes. It does no I/O but reading the files that
// flags name (--env-file, --label-file, a seccomp profile).
package runopts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// Flags holds every flag that describes a container, a group for each part of
// the document that it ends in.
type Flags struct {
	process   processFlags
	resources resourceFlags
	devices   deviceFlags
	storage   storageFlags
	network   networkFlags
	security  securityFlags
	health    healthFlags
	host      hostFlags
}

// Document is what POST /containers/create takes.
type Document struct {
	Config     *container.Config
	Host       *container.HostConfig
	Networking *network.NetworkingConfig
}

// group is one part of the flags.
type group interface {
	register(fs *pflag.FlagSet)
	apply(fs *pflag.FlagSet, d *Document) error
}

func (f *Flags) groups() []group {
	return []group{&f.process, &f.resources, &f.devices, &f.storage, &f.network, &f.security, &f.health, &f.host}
}

// Register adds the flags to a command.
func (f *Flags) Register(fs *pflag.FlagSet) {
	for _, g := range f.groups() {
		g.register(fs)
	}
}

// Parse makes the document of parsed flags, an image and a command.
func (f *Flags) Parse(fs *pflag.FlagSet, image string, args []string) (*Document, error) {
	d := &Document{
		Config:     &container.Config{Image: image},
		Host:       &container.HostConfig{},
		Networking: &network.NetworkingConfig{},
	}
	if len(args) > 0 {
		d.Config.Cmd = args
	}
	for _, g := range f.groups() {
		if err := g.apply(fs, d); err != nil {
			return nil, err
		}
	}
	if d.Host.AutoRemove && !d.Host.RestartPolicy.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	return d, nil
}

// TTY and AutoRemove report flags that the caller acts on as well.
func (f *Flags) TTY() bool { return f.process.tty }

// ContainerIDFile is the value of --cidfile.
func (f *Flags) ContainerIDFile() string { return f.host.cidFile }

// hostFlags are about the engine's dealings with the container.
type hostFlags struct {
	autoRemove   bool
	restart      string
	logDriver    string
	logOpts      listFlag
	runtime      string
	isolation    string
	cidFile      string
	ipc          string
	pid          string
	uts          string
	userns       string
	cgroupns     string
	cgroupParent string
	init         bool
	annotations  mapFlag
	sysctls      mapFlag
}

func (h *hostFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&h.autoRemove, "rm", false, "Remove the container and its anonymous volumes when it exits")
	fs.StringVar(&h.restart, "restart", "no", "When to restart the container: no, always, unless-stopped or on-failure[:max]")
	fs.StringVar(&h.logDriver, "log-driver", "", "Where the container's output is logged")
	fs.Var(&h.logOpts, "log-opt", "Option of the log driver (key=value)")
	fs.StringVar(&h.runtime, "runtime", "", "Runtime for this container")
	fs.StringVar(&h.isolation, "isolation", "", "Isolation technology")
	fs.StringVar(&h.cidFile, "cidfile", "", "Write the container's ID to a file")
	fs.StringVar(&h.ipc, "ipc", "", "IPC namespace: none, private, shareable, host or container:NAME")
	fs.StringVar(&h.pid, "pid", "", "PID namespace: host or container:NAME")
	fs.StringVar(&h.uts, "uts", "", "UTS namespace: host")
	fs.StringVar(&h.userns, "userns", "", "User namespace: host")
	fs.StringVar(&h.cgroupns, "cgroupns", "", "Cgroup namespace: host or private (default as the daemon says)")
	fs.StringVar(&h.cgroupParent, "cgroup-parent", "", "Parent cgroup of the container")
	fs.BoolVar(&h.init, "init", false, "Run an init in the container that forwards signals and reaps processes")
	fs.Var(&h.annotations, "annotation", "Annotation passed to the runtime (key=value)")
	h.sysctls.Check = checkSysctl
	fs.Var(&h.sysctls, "sysctl", "Kernel parameter (name=value)")
}

func (h *hostFlags) apply(fs *pflag.FlagSet, d *Document) error {
	hc := d.Host
	policy, err := RestartPolicy(h.restart)
	if err != nil {
		return err
	}
	hc.RestartPolicy = policy
	hc.AutoRemove = h.autoRemove
	hc.Runtime = h.runtime
	hc.Isolation = container.Isolation(h.isolation)
	hc.ContainerIDFile = h.cidFile
	hc.IpcMode = container.IpcMode(h.ipc)
	hc.PidMode = container.PidMode(h.pid)
	hc.UTSMode = container.UTSMode(h.uts)
	hc.UsernsMode = container.UsernsMode(h.userns)
	hc.CgroupnsMode = container.CgroupnsMode(h.cgroupns)
	hc.CgroupParent = h.cgroupParent
	switch {
	case !hc.PidMode.Valid():
		return errors.New("--pid: invalid PID mode")
	case !hc.UTSMode.Valid():
		return errors.New("--uts: invalid UTS mode")
	case !hc.UsernsMode.Valid():
		return errors.New("--userns: invalid USER mode")
	case !hc.CgroupnsMode.Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	if h.logDriver == "none" && len(h.logOpts.Values) > 0 {
		return fmt.Errorf("invalid logging opts for driver %s", h.logDriver)
	}
	hc.LogConfig = container.LogConfig{Type: h.logDriver, Config: h.logOpts.Pairs()}
	if fs.Changed("init") {
		hc.Init = &h.init
	}
	hc.Annotations = h.annotations.Values
	hc.Sysctls = h.sysctls.Values
	return nil
}

// RestartPolicy parses no, always, unless-stopped and on-failure[:max].
func RestartPolicy(s string) (container.RestartPolicy, error) {
	var p container.RestartPolicy
	if s == "" {
		return p, nil
	}
	name, count, has := strings.Cut(s, ":")
	if has && name == "" {
		return p, errors.New("invalid restart policy format: no policy provided before colon")
	}
	if count != "" {
		n, err := strconv.Atoi(count)
		if err != nil {
			return p, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	p.Name = container.RestartPolicyMode(name)
	return p, nil
}

// checkSysctl allows only what a namespace of the container's own holds.
func checkSysctl(v string) (string, error) {
	k, _, ok := strings.Cut(v, "=")
	if !ok {
		return "", fmt.Errorf("sysctl '%s' is not allowed", v)
	}
	if strings.HasPrefix(k, "net.") || strings.HasPrefix(k, "fs.mqueue.") {
		return v, nil
	}
	switch k {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced":
		return v, nil
	}
	return "", fmt.Errorf("sysctl '%s' is not allowed", v)
}
