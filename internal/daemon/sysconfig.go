package daemon

import (
	"context"
	"io"
	"net/http"

	apisystem "github.com/moby/moby/api/types/system"

	"github.com/skiff-containers/skiff/internal/engine/system"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/version"
)

// systemConfig is what the daemon tells of itself in /info and /version.
func (d *daemon) systemConfig(c *Config) system.Config {
	proxies := c.proxies()
	conf := system.Config{
		ID: d.id, Root: c.DataRoot, Version: version.Version, Commit: version.Commit, BuildTime: version.Built, Debug: c.Debug, Labels: c.Labels,
		Driver:        "overlay2",
		DriverStatus:  [][2]string{{"Supports d_type", "true"}, {"Native Overlay Diff", "true"}},
		LoggingDriver: c.LogDriver, LogDrivers: logDrivers(), CgroupDriver: c.cgroupDriver(),
		VolumeDrivers: []string{"local"}, NetworkDrivers: []string{"bridge", "host", "ipvlan", "macvlan", "null"},
		SeccompProfile: c.SeccompProfile, NoNewPrivileges: c.NoNewPrivs, UserNS: d.users != nil,
		Runtimes: c.runtimes(), DefaultRuntime: c.defaultRuntime(), InitBinary: "skiff-shim", Experimental: c.Experimental,
		InsecureRegistries: c.InsecureRegistries, Mirrors: c.Mirrors,
		HTTPProxy: proxies[0], HTTPSProxy: proxies[1], NoProxy: proxies[2],
		LiveRestore: c.LiveRestore, AddressPools: c.addressPools(),
		Firewall: &apisystem.FirewallInfo{Driver: "nftables"},
	}
	for _, h := range c.Hosts {
		if c.InsecureTCP && !c.TLSVerify && len(h) > 6 && h[:6] == "tcp://" {
			conf.Warnings = append(conf.Warnings, "WARNING: API is accessible on "+h+" without encryption or authentication: whoever reaches it is root on this host")
		}
	}
	return conf
}

// fetchURL opens the URL of an image to import.
func fetchURL(ctx context.Context, url string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errs.With(errs.Unavailable, err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		kind := errs.Unavailable
		if resp.StatusCode == http.StatusNotFound {
			kind = errs.NotFound
		}
		return nil, errs.Newf(kind, "%s answered %s", url, resp.Status)
	}
	return resp.Body, nil
}
