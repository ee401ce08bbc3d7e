package buildsession

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/config/types"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/tonistiigi/fsutil"

	"github.com/skiff-containers/skiff/internal/cli/authfile"
	"github.com/skiff-containers/skiff/internal/cli/buildctx"
)

// solveOpt turns the flags into BuildKit's request.
func (b *builder) solveOpt(conf *authfile.File, host string) (*bkclient.SolveOpt, error) {
	opt := &bkclient.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{},
	}
	for _, step := range []func(*bkclient.SolveOpt) error{
		b.refuse, b.frontendAttrs, b.context, b.contexts, b.exports, b.caches, b.secrets,
	} {
		if err := step(opt); err != nil {
			return nil, err
		}
	}
	for k, v := range conf.Proxy(host) {
		if _, given := opt.FrontendAttrs["build-arg:"+k]; !given {
			opt.FrontendAttrs["build-arg:"+k] = v
		}
	}
	opt.Session = append(opt.Session, authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: func(_ context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck) (types.AuthConfig, error) {
			if host == authprovider.DockerHubRegistryHost {
				host = authfile.IndexServer
			}
			a, err := conf.Get(host)
			return types.AuthConfig{
				Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress,
				IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
			}, err
		},
	}))
	return opt, nil
}

// refuse names flags that only the old builder had, instead of forgetting them.
func (b *builder) refuse(*bkclient.SolveOpt) error {
	f := b.flags
	for _, c := range []struct {
		given bool
		name  string
	}{
		{f.Squash, "squash"},
		{f.Compress, "compress"},
		{f.Memory != 0, "memory"},
		{f.MemorySwap != 0, "memory-swap"},
		{f.CPUShares != 0, "cpu-shares"},
		{f.CPUPeriod != 0, "cpu-period"},
		{f.CPUQuota != 0, "cpu-quota"},
		{f.CPUSetCPUs != "", "cpuset-cpus"},
		{f.CPUSetMems != "", "cpuset-mems"},
		{len(f.SecurityOpt) > 0, "security-opt"},
		{f.Isolation != "" && f.Isolation != "default", "isolation"},
	} {
		if c.given {
			return fmt.Errorf("--%s is not supported together with --secret, --ssh, --output, --progress and the like", c.name)
		}
	}
	return nil
}

func (b *builder) frontendAttrs(opt *bkclient.SolveOpt) error {
	f, attrs := b.flags, opt.FrontendAttrs
	for _, a := range f.BuildArgs.Values {
		if k, v, ok := strings.Cut(a, "="); ok {
			attrs["build-arg:"+k] = v
		}
	}
	for _, l := range f.Labels.Values {
		k, v, _ := strings.Cut(l, "=")
		attrs["label:"+k] = v
	}
	set := func(k, v string) {
		if v != "" {
			attrs[k] = v
		}
	}
	set("target", f.Target)
	set("platform", strings.Join(f.Platforms, ","))
	set("cgroup-parent", f.CgroupParent)
	if f.ShmSize > 0 {
		attrs["shm-size"] = strconv.FormatInt(int64(f.ShmSize), 10)
	}
	var limits []string
	for _, u := range f.Ulimits.Sorted() {
		limits = append(limits, u.String())
	}
	set("ulimit", strings.Join(limits, ","))
	var hosts []string
	for _, h := range f.AddHosts.Values {
		name, ip, _ := strings.Cut(h, ":")
		hosts = append(hosts, name+"="+ip)
	}
	set("add-hosts", strings.Join(hosts, ","))
	switch f.Network {
	case "", "default":
	case "host":
		attrs["force-network-mode"] = "host"
		opt.AllowedEntitlements = append(opt.AllowedEntitlements, "network.host")
	default: // none, or the name of a network
		attrs["force-network-mode"] = f.Network
	}
	if f.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	if f.NoCache {
		attrs["no-cache"] = ""
	}
	set("no-cache", strings.Join(f.Session.NoCacheFilter, ","))
	opt.AllowedEntitlements = append(opt.AllowedEntitlements, f.Session.Allow...)
	b.attestations(attrs)
	return nil
}

func (b *builder) attestations(attrs map[string]string) {
	s := b.flags.Session
	add := func(kind, v string) {
		switch v {
		case "", "false":
		case "true":
			attrs["attest:"+kind] = ""
		default:
			attrs["attest:"+kind] = v
		}
	}
	add("provenance", s.Provenance)
	add("sbom", s.SBOM)
	for _, a := range s.Attest.Values {
		kind, rest, _ := strings.Cut(a, ",")
		attrs["attest:"+strings.TrimPrefix(kind, "type=")] = rest
	}
}

// context gives the builder the main context and the Dockerfile.
func (b *builder) context(opt *bkclient.SolveOpt) error {
	f := b.flags
	switch {
	case b.spec == "-":
		return b.contextFromStream(opt)
	case buildctx.IsRemote(b.spec):
		opt.FrontendAttrs["context"] = b.spec
		if f.File != "" {
			opt.FrontendAttrs["filename"] = f.File
		}
		return nil
	}
	st, err := os.Stat(b.spec)
	if err != nil || !st.IsDir() {
		return fmt.Errorf("unable to prepare context: path %q not found, or no directory", b.spec)
	}
	if err := mountLocal(opt, "context", b.spec); err != nil {
		return err
	}
	file := f.File
	if file == "-" {
		return b.dockerfileFrom(opt, b.in)
	}
	if file == "" {
		file = filepath.Join(b.spec, buildctx.DefaultDockerfile)
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("unable to prepare context: failed to read dockerfile: %w", err)
	}
	opt.FrontendAttrs["filename"] = filepath.Base(file)
	return mountLocal(opt, "dockerfile", filepath.Dir(file))
}

// contextFromStream uploads an archive, or takes a lone Dockerfile.
func (b *builder) contextFromStream(opt *bkclient.SolveOpt) error {
	in := bufio.NewReaderSize(b.in, 64<<10)
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !buildctx.IsArchive(head) {
		if b.flags.File != "" {
			return errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
		}
		empty, err := b.tempDir()
		if err != nil {
			return err
		}
		if err := mountLocal(opt, "context", empty); err != nil {
			return err
		}
		return b.dockerfileFrom(opt, in)
	}
	up := uploadprovider.New()
	opt.FrontendAttrs["context"] = up.Add(io.NopCloser(in))
	opt.Session = append(opt.Session, up)
	if b.flags.File != "" {
		opt.FrontendAttrs["filename"] = b.flags.File
	}
	return nil
}

// dockerfileFrom puts a streamed Dockerfile into a directory of its own.
func (b *builder) dockerfileFrom(opt *bkclient.SolveOpt, r io.Reader) error {
	dir, err := b.tempDir()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, buildctx.DefaultDockerfile), text, 0o600); err != nil {
		return err
	}
	opt.FrontendAttrs["filename"] = buildctx.DefaultDockerfile
	return mountLocal(opt, "dockerfile", dir)
}

func (b *builder) tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "skiff-build-")
	if err == nil {
		b.cleanup = append(b.cleanup, func() { _ = os.RemoveAll(dir) })
	}
	return dir, err
}

func mountLocal(opt *bkclient.SolveOpt, name, dir string) error {
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	opt.LocalMounts[name] = fs
	return nil
}

// contexts are --build-context: directories go through the session, anything
// with a scheme is the builder's to fetch.
func (b *builder) contexts(opt *bkclient.SolveOpt) error {
	for _, c := range b.flags.Session.Contexts.Values {
		name, where, ok := strings.Cut(c, "=")
		if !ok || name == "" || where == "" {
			return fmt.Errorf("invalid build context %q: want NAME=PATH", c)
		}
		if strings.Contains(where, "://") {
			opt.FrontendAttrs["context:"+name] = where
			continue
		}
		if err := mountLocal(opt, name, where); err != nil {
			return fmt.Errorf("build context %s: %w", name, err)
		}
		opt.FrontendAttrs["context:"+name] = "local:" + name
	}
	return nil
}

// exports decides what becomes of the result: an image of the engine, unless
// --output says otherwise.
func (b *builder) exports(opt *bkclient.SolveOpt) error {
	tags, err := names(b.flags.Tags.Values)
	if err != nil {
		return err
	}
	var wanted []string
	for _, o := range b.flags.Session.Outputs.Values {
		// A path alone is a directory, a dash is a tar stream.
		switch {
		case o == "-":
			o = "type=tar,dest=-"
		case !strings.Contains(o, "="):
			o = "type=local,dest=" + o
		}
		wanted = append(wanted, o)
	}
	if opt.Exports, err = build.ParseOutput(wanted); err != nil {
		return err
	}
	for i := range opt.Exports {
		if e := &opt.Exports[i]; e.Type == bkclient.ExporterImage {
			e.Type = "moby" // the engine's images are the builder's
			if on, _ := strconv.ParseBool(e.Attrs["push"]); on {
				b.flags.Session.Push = true
			}
			delete(e.Attrs, "push")
		}
		if e := opt.Exports[i]; e.Attrs["name"] == "" && tags != "" && e.Type != bkclient.ExporterLocal && e.Type != bkclient.ExporterTar {
			e.Attrs["name"] = tags
		}
	}
	if len(opt.Exports) == 0 || b.flags.Session.Load && len(wanted) > 0 {
		attrs := map[string]string{}
		if tags != "" {
			attrs["name"] = tags
		}
		opt.Exports = append(opt.Exports, bkclient.ExportEntry{Type: "moby", Attrs: attrs})
	}
	return nil
}

func (b *builder) caches(opt *bkclient.SolveOpt) error {
	var from []string
	for _, c := range b.flags.CacheFrom {
		if !strings.Contains(c, "type=") {
			c = "type=registry,ref=" + c
		}
		from = append(from, c)
	}
	var err error
	if opt.CacheImports, err = build.ParseImportCache(from); err != nil {
		return err
	}
	var to []string
	for _, c := range b.flags.Session.CacheTo.Values {
		if !strings.Contains(c, "type=") {
			c = "type=registry,ref=" + c
		}
		to = append(to, c)
	}
	opt.CacheExports, err = build.ParseExportCache(to)
	return err
}

func (b *builder) secrets(opt *bkclient.SolveOpt) error {
	s := b.flags.Session
	if len(s.Secrets.Values) > 0 {
		p, err := build.ParseSecret(s.Secrets.Values)
		if err != nil {
			return err
		}
		opt.Session = append(opt.Session, p)
	}
	if len(s.SSH.Values) > 0 {
		agents, err := build.ParseSSH(s.SSH.Values)
		if err != nil {
			return err
		}
		var p session.Attachable
		if p, err = sshprovider.NewSSHAgentProvider(agents); err != nil {
			return err
		}
		opt.Session = append(opt.Session, p)
	}
	return nil
}

// writeMetadata writes the exporter's answers; those that are JSON in base64
// become JSON.
func writeMetadata(path string, answers map[string]string) error {
	doc := make(map[string]any, len(answers))
	for k, v := range answers {
		doc[k] = v
		if raw, err := base64.StdEncoding.DecodeString(v); err == nil && len(raw) > 0 && json.Valid(raw) && (raw[0] == '{' || raw[0] == '[') {
			doc[k] = json.RawMessage(raw)
		}
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644) //nolint:gosec // as the umask says
}
