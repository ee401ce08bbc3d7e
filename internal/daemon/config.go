// Package daemon is skiffd's composition root: it reads the configuration,
// builds every room by hand, runs them and closes them in reverse.
package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/runtime/spec"
	"github.com/skiff-containers/skiff/internal/runtime/spec/cdi"
)

// Config is what skiffd runs with. Flags and the keys of daemon.json carry
// dockerd's names; what is not offered is refused by name.
type Config struct {
	Hosts      []string
	HostsRO    []string // sockets through which everything can be looked at, nothing changed
	DataRoot   string
	ExecRoot   string
	Pidfile    string
	ConfigFile string
	Group      string
	Debug      bool
	LogLevel   string
	LogFormat  string
	Labels     []string
	Validate   bool

	TLS, TLSVerify              bool
	TLSCACert, TLSCert, TLSKey  string
	InsecureTCP                 bool
	InsecureRegistries, Mirrors []string
	MaxDownloads, MaxUploads    int

	BIP          string
	IPv6         bool
	FixedCIDR6   string
	NetworkOpts  map[string]map[string]string // of new networks, by driver
	Pools        []string
	DNS          []string
	DNSOptions   []string
	DNSSearch    []string
	MTU          int
	ICC          bool
	HostBindIP   string
	HostGateways []string // what "host-gateway" means; none: the default bridge's
	Bridge       string
	CgroupParent string
	// Of the parent, for real-time tasks, in microseconds; 0: as it is.
	RealtimePeriod, RealtimeRuntime int64

	LogDriver      string
	LogOpts        map[string]string
	Ulimits        map[string]*container.Ulimit
	ShmSize        int64
	IpcMode        string
	CgroupnsMode   string // "": private, as far as the host has namespaces of control groups
	Init           bool
	SeccompProfile string
	seccomp        string // what is in that file; else the same
	NoNewPrivs     bool
	UsernsRemap    string // whose ids containers have: "", "default", USER or USER:GROUP
	Runtimes       map[string]system.Runtime
	DefaultRuntime string
	Experimental   bool

	RegistryAddr, RegistryDir, RegistryHtpasswd, RegistryCert, RegistryKey string

	ShimBinary  string
	CDISpecDirs []string // where vendors describe devices

	dockerKeys

	// Things dockerd lets one choose and that have one answer here: the right
	// one is accepted, so that an existing daemon.json goes on working.
	StorageDriver string
	StorageOpts   []string
	LiveRestore   bool
	ExecOpts      []string
	Features      map[string]bool
}

// DefaultConfig returns the configuration without flags and file.
func DefaultConfig() *Config {
	return &Config{
		DataRoot:     "/var/lib/skiff",
		ExecRoot:     "/run/skiff",
		ConfigFile:   "/etc/skiff/daemon.json",
		LogLevel:     "info",
		LogFormat:    "text",
		MaxDownloads: 6,
		MaxUploads:   5,
		MTU:          1500,
		ICC:          true,
		HostBindIP:   "0.0.0.0",
		LogDriver:    "local",
		LogOpts:      map[string]string{},
		NetworkOpts:  map[string]map[string]string{},
		Ulimits:      map[string]*container.Ulimit{},
		Runtimes:     map[string]system.Runtime{},
		ShmSize:      64 << 20,
		IpcMode:      string(container.IPCModePrivate),
		Features:     map[string]bool{},
		LiveRestore:  true,
		CDISpecDirs:  cdi.DefaultDirs(),
		dockerKeys:   defaultDockerKeys(),
	}
}

// AddFlags declares the flags, with dockerd's names, on fs.
func (c *Config) AddFlags(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&c.Hosts, "host", "H", nil, "Daemon socket(s) to connect to (unix://, tcp://, fd://)")
	fs.StringArrayVar(&c.HostsRO, "host-ro", nil, "Further socket(s) that only let look: nothing can be changed through them (unix://, tcp://)")
	fs.StringVar(&c.DataRoot, "data-root", c.DataRoot, "Root directory of persistent state")
	fs.StringVar(&c.ExecRoot, "exec-root", c.ExecRoot, "Root directory for execution state files")
	fs.StringVarP(&c.Pidfile, "pidfile", "p", "", "Path to use for daemon PID file (default EXEC-ROOT/skiffd.pid)")
	fs.StringVar(&c.ConfigFile, "config-file", c.ConfigFile, "Daemon configuration file")
	fs.StringVarP(&c.Group, "group", "G", "", "Group for the unix socket (default \"skiff\" if there is one)")
	fs.BoolVarP(&c.Debug, "debug", "D", false, "Enable debug mode")
	fs.StringVarP(&c.LogLevel, "log-level", "l", c.LogLevel, `Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")`)
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, `Set the logging format ("text"|"json")`)
	fs.StringArrayVar(&c.Labels, "label", nil, "Set key=value labels to the daemon")
	fs.BoolVar(&c.Validate, "validate", false, "Validate daemon configuration and exit")

	fs.BoolVar(&c.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&c.TLSVerify, "tlsverify", false, "Use TLS and verify the remote")
	fs.StringVar(&c.TLSCACert, "tlscacert", "", "Trust certs signed only by this CA")
	fs.StringVar(&c.TLSCert, "tlscert", "", "Path to TLS certificate file")
	fs.StringVar(&c.TLSKey, "tlskey", "", "Path to TLS key file")
	fs.BoolVar(&c.InsecureTCP, "insecure-tcp-without-authentication", false,
		"Serve tcp:// without mutual TLS: whoever reaches the port is root on this host")

	fs.StringArrayVar(&c.InsecureRegistries, "insecure-registry", nil, "Enable insecure registry communication (host[:port] or CIDR)")
	fs.StringArrayVar(&c.Mirrors, "registry-mirror", nil, "Preferred registry mirror of Docker Hub")
	fs.IntVar(&c.MaxDownloads, "max-concurrent-downloads", c.MaxDownloads, "Set the max concurrent downloads")
	fs.IntVar(&c.MaxUploads, "max-concurrent-uploads", c.MaxUploads, "Set the max concurrent uploads")

	fs.StringVar(&c.BIP, "bip", "", "IPv4 address for the default bridge (CIDR)")
	fs.BoolVar(&c.IPv6, "ipv6", false, "Give the default bridge IPv6, too")
	fs.StringVar(&c.FixedCIDR6, "fixed-cidr-v6", "", "IPv6 subnet of the default bridge (CIDR; default: chosen)")
	fs.Var(networkOptsFlag(c.NetworkOpts), "default-network-opt", "Default driver options of new networks (driver=key=value)")
	fs.StringArrayVar(&c.Pools, "default-address-pool", nil, "Default address pools for networks (base=CIDR,size=BITS)")
	fs.StringArrayVar(&c.DNS, "dns", nil, "DNS server to use")
	fs.StringArrayVar(&c.DNSOptions, "dns-opt", nil, "DNS options to use")
	fs.StringArrayVar(&c.DNSSearch, "dns-search", nil, "DNS search domains to use")
	fs.IntVar(&c.MTU, "mtu", c.MTU, "Set the MTU of the default bridge")
	fs.BoolVar(&c.ICC, "icc", true, "Enable inter-container communication on the default bridge")
	fs.StringVar(&c.HostBindIP, "ip", c.HostBindIP, "Host IP for port publishing from the default bridge network")
	fs.StringArrayVar(&c.HostGateways, "host-gateway-ip", nil, "IP addresses that the special 'host-gateway' string in --add-host resolves to (default: the default bridge's)")
	fs.StringVarP(&c.Bridge, "bridge", "b", "", "Name of the default bridge's interface; none: there is no default bridge (default \"skiff0\")")
	fs.StringVar(&c.CgroupParent, "cgroup-parent", c.CgroupParent, "Set parent cgroup for all containers (default \"/skiff\"; a slice of systemd's with its driver)")
	fs.Int64Var(&c.RealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds for the parent cgroup of all containers (cgroup v1)")
	fs.Int64Var(&c.RealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds for the parent cgroup of all containers (cgroup v1)")

	fs.StringVar(&c.LogDriver, "log-driver", c.LogDriver, "Default driver for container logs")
	fs.Var(mapFlag(c.LogOpts), "log-opt", "Default log driver options for containers")
	fs.Var(ulimitFlag(c.Ulimits), "default-ulimit", "Default ulimits for containers")
	fs.Var((*bytesFlag)(&c.ShmSize), "default-shm-size", "Default shm size for containers")
	fs.StringVar(&c.IpcMode, "default-ipc-mode", c.IpcMode, `Default mode for containers ipc ("shareable"|"private")`)
	fs.StringVar(&c.CgroupnsMode, "default-cgroupns-mode", "", `Default mode for containers cgroup namespace ("host"|"private") (default "private")`)
	fs.BoolVar(&c.Init, "init", false, "Run an init in the container to forward signals and reap processes")
	fs.StringArrayVar(&c.CDISpecDirs, "cdi-spec-dir", c.CDISpecDirs, "CDI specification directories to use")
	fs.StringVar(&c.SeccompProfile, "seccomp-profile", "", `Path to seccomp profile, "builtin" or "unconfined"`)
	fs.BoolVar(&c.NoNewPrivs, "no-new-privileges", false, "Set no-new-privileges by default for new containers")

	fs.StringVar(&c.UsernsRemap, "userns-remap", "", `User/Group setting for user namespaces: "default", or USER[:GROUP] with ids in /etc/subuid and /etc/subgid`)

	fs.Var(runtimesFlag(c.Runtimes), "add-runtime", "Register an additional OCI compatible runtime")
	fs.StringVar(&c.DefaultRuntime, "default-runtime", "skiff", "Default OCI runtime for containers")
	fs.BoolVar(&c.Experimental, "experimental", false, "Enable experimental features: checkpoints")

	fs.StringVar(&c.RegistryAddr, "registry", "", "Serve Skiff's own registry on this address (host:port)")
	fs.StringVar(&c.RegistryDir, "registry-dir", "", "Directory of the registry (default DATA-ROOT/registry)")
	fs.StringVar(&c.RegistryHtpasswd, "registry-htpasswd", "", "htpasswd file (bcrypt) the registry authenticates with")
	fs.StringVar(&c.RegistryCert, "registry-tlscert", "", "TLS certificate of the registry")
	fs.StringVar(&c.RegistryKey, "registry-tlskey", "", "TLS key of the registry")

	fs.StringVarP(&c.StorageDriver, "storage-driver", "s", "", `Storage driver to use: "overlay2", the only one`)
	fs.StringArrayVar(&c.StorageOpts, "storage-opt", nil, "Storage driver options: overlay2.size=SIZE limits the writable layer of containers that name no size")
	fs.BoolVar(&c.LiveRestore, "live-restore", true, "Containers go on when the daemon is stopped (false: they are stopped before)")
	fs.StringArrayVar(&c.ExecOpts, "exec-opt", nil, "Runtime execution options: native.cgroupdriver=cgroupfs (default) or systemd")

	fs.Var(featuresFlag(c.Features), "feature", "Switch a feature: cdi; others of docker's have one answer (key=bool)")
	c.addFlags(fs)
	fs.StringVar(&c.ShimBinary, "shim", "", "Path to skiff-shim (default: the one carried inside skiffd, or beside it)")
}

// Finish fills what depends on other values and refuses what does not fit
// together.
func (c *Config) Finish() error {
	for _, p := range []*string{&c.DataRoot, &c.ExecRoot} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"unix://" + filepath.Join(c.ExecRoot, "skiff.sock")}
	}
	if c.Pidfile == "" {
		c.Pidfile = filepath.Join(c.ExecRoot, "skiffd.pid")
	}
	if c.RegistryDir == "" {
		c.RegistryDir = filepath.Join(c.DataRoot, "registry")
	}
	var bad []error
	check := checker(func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Errorf(format, args...))
		}
	})
	for _, h := range c.Hosts {
		c.checkHost("--host", h, check)
	}
	for _, h := range c.HostsRO {
		c.checkHost("--host-ro", h, check)
		check(!slices.Contains(c.Hosts, h), "%s is both --host and --host-ro", h)
		check(!strings.HasPrefix(h, "fd://"), "invalid --host-ro %q: want unix://PATH or tcp://ADDR:PORT", h)
	}
	if c.TLS || c.TLSVerify {
		check(c.TLSCert != "" && c.TLSKey != "", "TLS needs --tlscert and --tlskey")
		check(!c.TLSVerify || c.TLSCACert != "", "--tlsverify needs --tlscacert")
	}
	if c.BIP != "" {
		p, err := netip.ParsePrefix(c.BIP)
		check(err == nil && p.Addr().Is4(), "invalid --bip %q: want an IPv4 address with a prefix length", c.BIP)
	}
	if c.FixedCIDR6 != "" {
		p, err := netip.ParsePrefix(c.FixedCIDR6)
		check(err == nil && p.Addr().Is6() && p == p.Masked(), "invalid --fixed-cidr-v6 %q: want an IPv6 subnet", c.FixedCIDR6)
	}
	for _, s := range c.DNS {
		_, err := netip.ParseAddr(s)
		check(err == nil, "invalid --dns %q: not an IP address", s)
	}
	c.checkHostGateways(check)
	check(c.IpcMode == "private" || c.IpcMode == "shareable", "invalid --default-ipc-mode %q: want private or shareable", c.IpcMode)
	check(c.CgroupnsMode == "" || c.CgroupnsMode == "private" || c.CgroupnsMode == "host", "invalid --default-cgroupns-mode %q: want private or host", c.CgroupnsMode)
	c.CDISpecDirs = slices.DeleteFunc(c.CDISpecDirs, func(dir string) bool { return dir == "" })
	if on, set := c.Features["cdi"]; set && !on {
		c.CDISpecDirs = nil
	}
	_, err := netip.ParseAddr(c.HostBindIP)
	check(err == nil, "invalid --ip %q: not an IP address", c.HostBindIP)
	_, ok := logLevel(c.LogLevel)
	check(ok, "invalid --log-level %q: want debug, info, warn, error or fatal", c.LogLevel)
	check(c.LogFormat == "text" || c.LogFormat == "json", "invalid --log-format %q: want text or json", c.LogFormat)
	check(c.MaxDownloads >= 0, "invalid --max-concurrent-downloads %d", c.MaxDownloads)
	check(c.MaxUploads >= 0, "invalid --max-concurrent-uploads %d", c.MaxUploads)
	check(c.MTU == 0 || c.MTU >= 68 && c.MTU <= 65535, "invalid --mtu %d", c.MTU)
	c.checkCgroups(check)
	for _, l := range c.Labels {
		check(strings.Contains(l, "="), "invalid --label %q: want key=value", l)
	}
	if err := c.loadSeccomp(); err != nil {
		bad = append(bad, err)
	}
	if err := c.checkLog(); err != nil {
		bad = append(bad, err)
	}
	check(slices.Contains([]string{"", "overlay2", "overlay", "overlayfs"}, c.StorageDriver),
		"--storage-driver %s is not supported: layers are kept by overlay2", c.StorageDriver)
	_, err = c.layerSize()
	check(err == nil, "%w", err)
	c.checkDocker(check)
	err = c.checkDefaultRuntime()
	check(err == nil, "%w", err)
	check((c.RegistryCert == "") == (c.RegistryKey == ""), "--registry-tlscert and --registry-tlskey go together")
	return errs.With(errs.Invalid, errors.Join(bad...))
}

// layerSize is the limit of writable layers, of --storage-opt; 0 is none.
func (c *Config) layerSize() (uint64, error) {
	opts := map[string]string{}
	for _, o := range c.StorageOpts {
		k, v, _ := strings.Cut(o, "=")
		if k == "overlay2.override_kernel_check" {
			continue // a check that docker, too, makes no longer
		}
		name := strings.TrimPrefix(strings.TrimPrefix(k, "overlay2."), "skiff.")
		if name == k || name != "size" {
			return 0, fmt.Errorf("--storage-opt %s is not supported: only overlay2.size is, or by its other name skiff.size", o)
		}
		opts[name] = v
	}
	return spec.LayerSize(opts)
}

type mapFlag map[string]string

func (m mapFlag) String() string { return textOf(m) }
func (m mapFlag) Type() string   { return "map" }
func (m mapFlag) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok || k == "" {
		return fmt.Errorf("want key=value, not %q", s)
	}
	m[k] = v
	return nil
}

// textOf tells one map from another.
func textOf[V any](m map[string]V) string {
	if len(m) == 0 {
		return ""
	}
	return fmt.Sprint(m)
}

type ulimitFlag map[string]*container.Ulimit

func (u ulimitFlag) String() string {
	text := map[string]string{}
	for name, l := range u {
		text[name] = l.String()
	}
	return textOf(text)
}
func (u ulimitFlag) Type() string { return "ulimit" }
func (u ulimitFlag) Set(s string) error {
	l, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	u[l.Name] = l
	return nil
}

type bytesFlag int64

func (b *bytesFlag) String() string { return units.BytesSize(float64(*b)) }
func (b *bytesFlag) Type() string   { return "bytes" }
func (b *bytesFlag) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return err
	}
	if n <= 0 {
		return fmt.Errorf("must be above 0, not %s", s)
	}
	*b = bytesFlag(n)
	return nil
}

// checkHost checks the address of a socket.
func (c *Config) checkHost(flag, h string, check func(ok bool, format string, args ...any)) {
	scheme, addr, ok := strings.Cut(h, "://")
	check(ok && (scheme == "unix" || scheme == "tcp" || scheme == "fd"), "invalid %s %q: want unix://PATH, tcp://ADDR:PORT or fd://", flag, h)
	if scheme != "tcp" {
		return
	}
	_, _, err := net.SplitHostPort(addr)
	check(err == nil, "invalid %s %q: %v", flag, h, err)
	check(c.TLSVerify || c.InsecureTCP, "%s %s: refusing to serve TCP without mutual TLS: add --tlsverify --tlscacert --tlscert --tlskey, or --insecure-tcp-without-authentication", flag, h)
}
