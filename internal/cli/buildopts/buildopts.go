// Package buildopts holds the flags of "build", which two programs read: skiff,
// and skiff-build, its helper with a BuildKit client inside.
package buildopts

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/cli/opts"
	"github.com/skiff-containers/skiff/internal/cli/runopts"
)

// Flags are all flags of "build".
type Flags struct {
	Tags, BuildArgs, Labels, AddHosts opts.List
	Ulimits                           opts.Ulimits
	File, Target, Network, IIDFile    string
	CacheFrom, SecurityOpt, Platforms []string
	NoCache, Pull, Quiet              bool
	Remove, ForceRemove               bool
	Compress, Squash                  bool
	Memory, ShmSize                   opts.Bytes
	MemorySwap                        opts.SwapBytes
	CPUShares, CPUPeriod, CPUQuota    int64
	CPUSetCPUs, CPUSetMems            string
	CgroupParent, Isolation           string
	Session                           SessionFlags
}

// SessionFlags need a conversation between builder and client, as BuildKit has
// it.
type SessionFlags struct {
	Secrets, SSH, CacheTo, Outputs opts.List
	Contexts                       opts.List
	NoCacheFilter                  []string
	Allow                          []string
	Progress                       string
	MetadataFile                   string
	Push, Load                     bool
	Provenance, SBOM               string
	Attest                         opts.List
	Builder                        string
}

// Register adds the flags to a command.
func (f *Flags) Register(fs *pflag.FlagSet) {
	fs.VarP(&f.Tags, "tag", "t", "Name, and tag, of the image (name:tag)")
	fs.StringVarP(&f.File, "file", "f", "", "Name of the Dockerfile (default \"PATH/Dockerfile\")")
	f.BuildArgs.Check = opts.CheckEnv
	fs.Var(&f.BuildArgs, "build-arg", "Set a build-time variable (KEY=value, or KEY of our own)")
	f.Labels.Check = opts.CheckLabel
	fs.Var(&f.Labels, "label", "Set a label of the image (key=value)")
	fs.StringVar(&f.Target, "target", "", "Build up to this stage")
	fs.StringSliceVar(&f.Platforms, "platform", platformDefault(), "Platform to build for (os/arch[/variant])")
	fs.StringVar(&f.Network, "network", "default", "Network of RUN instructions")
	f.AddHosts.Check = runopts.CheckExtraHost
	fs.Var(&f.AddHosts, "add-host", "Add a host name and its address (host:ip)")
	fs.Var(&f.Ulimits, "ulimit", "Resource limit (name=soft[:hard])")
	fs.StringVar(&f.IIDFile, "iidfile", "", "Write the image ID to a file")
	fs.StringSliceVar(&f.CacheFrom, "cache-from", nil, "Use this image's or store's layers as cache")
	fs.BoolVar(&f.NoCache, "no-cache", false, "Do not use the cache")
	fs.BoolVar(&f.Pull, "pull", false, "Look for newer versions of base images")
	fs.BoolVarP(&f.Quiet, "quiet", "q", false, "Print the image ID only")
	fs.Var(&f.ShmSize, "shm-size", "Size of /dev/shm")
	fs.StringVar(&f.CgroupParent, "cgroup-parent", "", "Parent cgroup of RUN instructions")
	f.registerClassic(fs)
	f.Session.register(fs)
}

func platformDefault() []string {
	if p := os.Getenv("DOCKER_DEFAULT_PLATFORM"); p != "" {
		return []string{p}
	}
	return nil
}

// registerClassic adds what only the old builder knew.
func (f *Flags) registerClassic(fs *pflag.FlagSet) {
	fs.BoolVar(&f.Compress, "compress", false, "Compress the context")
	fs.BoolVar(&f.Squash, "squash", false, "Make one layer of all new ones")
	fs.BoolVar(&f.Remove, "rm", true, "Remove intermediate containers")
	fs.BoolVar(&f.ForceRemove, "force-rm", false, "Remove intermediate containers after a failure, too")
	fs.StringSliceVar(&f.SecurityOpt, "security-opt", nil, "Security option")
	fs.StringVar(&f.Isolation, "isolation", "", "Isolation technology")
	fs.VarP(&f.Memory, "memory", "m", "Memory limit")
	fs.Var(&f.MemorySwap, "memory-swap", "Limit of memory and swap together; -1 is no limit of swap")
	fs.Int64VarP(&f.CPUShares, "cpu-shares", "c", 0, "Relative weight of CPU time")
	fs.Int64Var(&f.CPUPeriod, "cpu-period", 0, "Period of the CPU quota, in microseconds")
	fs.Int64Var(&f.CPUQuota, "cpu-quota", 0, "CPU quota a period, in microseconds")
	fs.StringVar(&f.CPUSetCPUs, "cpuset-cpus", "", "CPUs to run on (0-3, 0,1)")
	fs.StringVar(&f.CPUSetMems, "cpuset-mems", "", "Memory nodes to use (0-3, 0,1)")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	for _, n := range []string{"rm", "force-rm", "disable-content-trust", "isolation"} {
		_ = fs.MarkHidden(n)
	}
}

func (s *SessionFlags) register(fs *pflag.FlagSet) {
	fs.Var(&s.Secrets, "secret", "Secret for RUN --mount=type=secret (id=name[,src=file|,env=VAR])")
	fs.Var(&s.SSH, "ssh", "SSH agent or keys for RUN --mount=type=ssh (default|id[=socket|key])")
	fs.VarP(&s.Outputs, "output", "o", "Where the result goes (type=local,dest=path)")
	fs.Var(&s.CacheTo, "cache-to", "Where the cache is exported to")
	fs.Var(&s.Contexts, "build-context", "Further context (name=path)")
	fs.StringSliceVar(&s.NoCacheFilter, "no-cache-filter", nil, "Do not use the cache for these stages")
	fs.StringSliceVar(&s.Allow, "allow", nil, "Allow a privilege (network.host, security.insecure)")
	fs.StringVar(&s.Progress, "progress", progressDefault(), "How progress is shown: auto, plain, tty, quiet or rawjson")
	fs.StringVar(&s.MetadataFile, "metadata-file", "", "Write the result's metadata to a file")
	fs.BoolVar(&s.Push, "push", false, "Push the result to its registry")
	fs.BoolVar(&s.Load, "load", false, "Keep the result as an image (the default)")
	fs.StringVar(&s.Provenance, "provenance", "", "Add a provenance attestation")
	fs.StringVar(&s.SBOM, "sbom", "", "Add an SBOM attestation")
	fs.Var(&s.Attest, "attest", "Add an attestation (type=sbom|provenance,...)")
	fs.StringVar(&s.Builder, "builder", "", "Ignored: there is one builder")
	_ = fs.MarkHidden("builder")
}

func progressDefault() string {
	if p := os.Getenv("BUILDKIT_PROGRESS"); p != "" {
		return p
	}
	return "auto"
}

// NeedsSession reports whether a flag asks for what a request and a stream
// cannot do.
func (f *Flags) NeedsSession(fs *pflag.FlagSet) bool {
	if len(f.Platforms) > 1 {
		return true
	}
	for _, n := range []string{"secret", "ssh", "output", "cache-to", "build-context", "no-cache-filter", "allow", "metadata-file", "push", "provenance", "sbom", "attest"} {
		if fs.Changed(n) {
			return true
		}
	}
	switch f.Session.Progress {
	case "auto", "":
		return false
	case "quiet":
		return false
	}
	return true
}
