package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/skiff-containers/skiff/internal/engine/containers"
	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// createBody is a create request with what older clients send besides, or in
// another form.
type createBody struct {
	container.CreateRequest
	HostConfig *createHostConfig
	Cmd        words // a string is allowed too
	Entrypoint words
	MacAddress network.HardwareAddr // now the endpoint's
}

// words is a list of strings, or one string.
type words []string

// UnmarshalJSON takes both forms.
func (w *words) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		err := json.Unmarshal(b, &s)
		*w = words{s}
		return err
	}
	return json.Unmarshal(b, (*[]string)(w))
}

type createHostConfig struct {
	container.HostConfig
	Capabilities []string // of 1.40 only: the exact set
	KernelMemory int64    // before 1.42
}

func (s *Server) containerCreate(w http.ResponseWriter, r *request) error {
	body, err := decodeCreate(r)
	if err != nil {
		return err
	}
	req := &body.CreateRequest
	o := containers.CreateOptions{Name: strings.TrimPrefix(r.get("name"), "/"), Request: req, FlatReadOnly: r.v.before(44)}
	if !r.v.before(41) {
		if o.Platform, err = r.platformName("platform"); err != nil {
			return err
		}
	}
	warnings, err := adaptCreate(r.v, body)
	if err != nil {
		return err
	}
	rep, err := s.Containers.Create(r.Context(), o)
	if err != nil {
		return err
	}
	rep.Warnings = append(list(rep.Warnings), warnings...)
	return writeJSON(w, http.StatusCreated, rep)
}

// decodeCreate reads the body; what it returns has all three parts.
func decodeCreate(r *request) (*createBody, error) {
	var b createBody
	err := r.decodeWhole(&b)
	if errors.Is(err, errNoBody) {
		err = errs.New(errs.Invalid, "invalid JSON: EOF") // docker's words, of this call alone
	}
	if err != nil {
		return nil, err
	}
	return &b, b.complete()
}

func (b *createBody) complete() error {
	if b.Config == nil {
		if b.Cmd == nil && b.Entrypoint == nil {
			return errs.New(errs.Invalid, "config cannot be empty in order to create a container")
		}
		b.Config = &container.Config{}
	}
	b.Config.Cmd, b.Config.Entrypoint = b.Cmd, b.Entrypoint
	if b.HostConfig == nil {
		b.HostConfig = &createHostConfig{}
	}
	b.CreateRequest.HostConfig = &b.HostConfig.HostConfig
	if b.NetworkingConfig == nil {
		b.NetworkingConfig = &network.NetworkingConfig{}
	}
	for name, ep := range b.NetworkingConfig.EndpointsConfig {
		if ep == nil {
			b.NetworkingConfig.EndpointsConfig[name] = &network.EndpointSettings{}
		}
	}
	return nil
}

// adaptCreate turns a request of an older version into what it means today.
func adaptCreate(v apiVersion, b *createBody) (warnings []string, err error) {
	hc, nc := b.CreateRequest.HostConfig, b.NetworkingConfig
	if hc.NetworkMode == "" || hc.NetworkMode.IsDefault() {
		hc.NetworkMode = network.NetworkBridge
		if ep, ok := nc.EndpointsConfig[network.NetworkDefault]; ok {
			delete(nc.EndpointsConfig, network.NetworkDefault)
			nc.EndpointsConfig[network.NetworkBridge] = ep
		}
	}
	if v == (apiVersion{1, 40}) && len(b.HostConfig.Capabilities) > 0 {
		return nil, errs.New(errs.Invalid, "the HostConfig.Capabilities field is not supported by this daemon; use CapAdd and CapDrop to set capabilities")
	}
	if v.before(42) && b.HostConfig.KernelMemory != 0 {
		warnings = append(warnings, "Specifying a kernel memory limit has no effect: kernels no longer offer one.")
	}
	adaptDefaults(v, b.Config, hc)
	if err := adaptMounts(v, hc.Mounts); err != nil {
		return nil, err
	}
	if err := adaptEndpoints(v, nc); err != nil {
		return nil, err
	}
	for _, f := range []func() (string, error){
		func() (string, error) { return volumeDriverWarning(v, hc), nil },
		func() (string, error) { return moveMAC(v, b) },
		func() (string, error) { return moveSysctls(v, hc, nc) },
		func() (string, error) { return fillPorts(v, hc), nil },
	} {
		warn, err := f()
		if err != nil {
			return nil, err
		}
		if warn != "" {
			warnings = append(warnings, warn)
		}
	}
	if hc.PidsLimit != nil && *hc.PidsLimit <= 0 { // every such number is unlimited
		hc.PidsLimit = nil
	}
	return warnings, nil
}

func adaptDefaults(v apiVersion, c *container.Config, hc *container.HostConfig) {
	if v.before(40) && hc.IpcMode.IsEmpty() {
		hc.IpcMode = container.IPCModeShareable
	}
	if v.before(42) {
		hc.ConsoleSize = [2]uint{}
	}
	if v.before(43) {
		hc.Annotations = nil
	}
	if v.before(44) && c.Healthcheck != nil {
		c.Healthcheck.StartInterval = 0
	}
}

// adaptMounts drops or refuses options that the version did not have.
func adaptMounts(v apiVersion, mounts []mount.Mount) error {
	for i := range mounts {
		m := &mounts[i]
		if v.before(42) { // not validated then
			if m.Type != mount.TypeVolume {
				m.VolumeOptions = nil
			}
			if m.Type != mount.TypeTmpfs {
				m.TmpfsOptions = nil
			}
			if m.Type != mount.TypeBind {
				m.BindOptions = nil
			}
		}
		switch {
		case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
			return errs.Newf(errs.Invalid, "VolumeOptions must not be specified on mount type %q", m.Type)
		case m.BindOptions != nil && m.Type != mount.TypeBind:
			return errs.Newf(errs.Invalid, "BindOptions must not be specified on mount type %q", m.Type)
		case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
			return errs.Newf(errs.Invalid, "TmpfsOptions must not be specified on mount type %q", m.Type)
		case v.before(45) && m.VolumeOptions != nil && m.VolumeOptions.Subpath != "":
			return errs.New(errs.Invalid, "VolumeOptions.Subpath needs API v1.45 or newer")
		case v.before(48) && m.Type == mount.TypeImage:
			return errs.New(errs.Invalid, `Mount type "Image" needs API v1.48 or newer`)
		}
		if err := adaptBind(v, m); err != nil {
			return err
		}
	}
	return nil
}

func adaptBind(v apiVersion, m *mount.Mount) error {
	if m.Type != mount.TypeBind || !v.before(44) {
		return nil
	}
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	o := m.BindOptions
	if o.ReadOnlyForceRecursive {
		return errs.New(errs.Invalid, "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
	}
	o.ReadOnlyNonRecursive = m.ReadOnly // submounts stayed writable before 1.44
	if v.before(42) {
		o.CreateMountpoint = false
	}
	if v.before(40) {
		o.NonRecursive = false
	}
	return nil
}

func adaptEndpoints(v apiVersion, nc *network.NetworkingConfig) error {
	if v.before(44) && len(nc.EndpointsConfig) > 1 {
		var names []string
		for n := range nc.EndpointsConfig {
			names = append(names, n)
		}
		slices.Sort(names)
		return errs.Newf(errs.Invalid, "Container cannot be created with multiple network endpoints: %s", strings.Join(names, ", "))
	}
	if v.before(48) {
		for _, ep := range nc.EndpointsConfig {
			ep.GwPriority = 0
		}
	}
	return nil
}

func volumeDriverWarning(v apiVersion, hc *container.HostConfig) string {
	if hc.VolumeDriver == "" || v.before(48) {
		return ""
	}
	for _, m := range hc.Mounts {
		named := m.VolumeOptions != nil && m.VolumeOptions.DriverConfig != nil && m.VolumeOptions.DriverConfig.Name != ""
		if m.Type == mount.TypeVolume && !named {
			return "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. Use '--mount type=volume,volume-driver=...' instead"
		}
	}
	return ""
}

// moveMAC moves the address that once was the container's to the endpoint it
// means.
func moveMAC(v apiVersion, b *createBody) (warning string, err error) {
	hc, nc, mac := b.CreateRequest.HostConfig, b.NetworkingConfig, b.MacAddress
	if v.before(44) { // endpoints had none
		for _, ep := range nc.EndpointsConfig {
			ep.MacAddress = nil
		}
	}
	if len(mac) == 0 {
		return "", nil
	}
	private := hc.NetworkMode.IsBridge() || hc.NetworkMode.IsUserDefined()
	switch {
	case !v.before(52):
		return "", errs.New(errs.Invalid, "container-wide MAC address no longer supported; use endpoint-specific MAC address instead")
	case v.before(44) && !private:
		return "", errs.New(errs.Invalid, "conflicting options: mac-address and the network mode")
	case private:
		ep, err := mainEndpoint(v, hc.NetworkMode, nc)
		if err != nil {
			return "", fmt.Errorf("unable to migrate container-wide MAC address to a specific network: %w", err)
		}
		if len(ep.MacAddress) > 0 && !slices.Equal(ep.MacAddress, mac) {
			return "", errs.New(errs.Invalid, "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
		}
		ep.MacAddress = mac
	}
	if v.before(44) {
		return "", nil
	}
	return "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.", nil
}

// sysctlsOption is the endpoint option that carries sysctls of its interface.
const sysctlsOption = "com.docker.network.endpoint.sysctls"

// moveSysctls moves net.*.*.eth0.* to the endpoint that will be eth0.
func moveSysctls(v apiVersion, hc *container.HostConfig, nc *network.NetworkingConfig) (warning string, err error) {
	if !hc.NetworkMode.IsPrivate() {
		return "", nil
	}
	var moved, options []string
	for k, val := range hc.Sysctls {
		p := strings.SplitN(k, ".", 5)
		if len(p) != 5 || p[0] != "net" || !strings.HasPrefix(p[3], "eth") {
			continue
		}
		switch {
		case !v.before(48):
			return "", errs.Newf(errs.Invalid, "interface specific sysctl setting %q must be supplied using driver option '%s'", k, sysctlsOption)
		case p[3] != "eth0":
			return "", errs.Newf(errs.Invalid, "unable to determine network endpoint for sysctl %s, use driver option '%s' to set per-interface sysctls", k, sysctlsOption)
		}
		moved = append(moved, k)
		options = append(options, fmt.Sprintf("net.%s.%s.IFNAME.%s=%s", p[1], p[2], p[4], val))
	}
	if len(moved) == 0 {
		return "", nil
	}
	ep, err := mainEndpoint(v, hc.NetworkMode, nc)
	if err != nil {
		return "", fmt.Errorf("unable to find a network for sysctl %s: %w", moved[0], err)
	}
	slices.Sort(moved)
	slices.Sort(options)
	for _, k := range moved {
		delete(hc.Sysctls, k)
	}
	opt := strings.Join(options, ",")
	warning = fmt.Sprintf("Migrated sysctl %q to DriverOpts{%q:%q}.", strings.Join(moved, ","), sysctlsOption, opt)
	if ep.DriverOpts == nil {
		ep.DriverOpts = map[string]string{}
	}
	if old := ep.DriverOpts[sysctlsOption]; old != "" { // the later wins
		opt += "," + old
	}
	ep.DriverOpts[sysctlsOption] = opt
	return warning, nil
}

// mainEndpoint finds or makes the endpoint of the container's network mode.
func mainEndpoint(v apiVersion, mode container.NetworkMode, nc *network.NetworkingConfig) (*network.EndpointSettings, error) {
	name := mode.NetworkName()
	if len(nc.EndpointsConfig) == 0 {
		nc.EndpointsConfig = map[string]*network.EndpointSettings{name: {}}
	}
	if v.before(44) { // there is one at most
		for _, ep := range nc.EndpointsConfig {
			return ep, nil
		}
	}
	ep, ok := nc.EndpointsConfig[name]
	if !ok {
		return nil, errs.New(errs.Invalid, "HostConfig.NetworkMode must match the identity of a network in NetworkSettings.Networks")
	}
	return ep, nil
}

// fillPorts gives a port that is published nowhere in particular a binding to
// any host port, as docker does.
func fillPorts(v apiVersion, hc *container.HostConfig) (warning string) {
	var empty []string
	for p, bindings := range hc.PortBindings {
		if len(bindings) == 0 {
			hc.PortBindings[p] = []network.PortBinding{{}}
			empty = append(empty, p.String())
		}
	}
	if len(empty) == 0 || v.before(52) {
		return ""
	}
	slices.Sort(empty)
	return fmt.Sprintf("Following container port(s) have an empty list of port-bindings: %s. Such bindings will be discarded in a future version.", strings.Join(empty, ", "))
}
