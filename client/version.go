package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// MaxAPIVersion is the newest version of the API that is spoken; older ones are
// spoken with daemons that know no newer.
const MaxAPIVersion = "1.56"

// MinAPIVersion is the oldest.
const MinAPIVersion = "1.40"

// APIVersion is the version spoken.
func (c *Client) APIVersion() string { return *c.version.Load() }

// agree makes sure that the daemon knows the version spoken.
func (c *Client) agree(ctx context.Context) error {
	if c.agreed.Load() {
		return nil
	}
	p, err := c.Ping(ctx)
	if err != nil {
		return err
	}
	if p.APIVersion != "" && lessVersion(p.APIVersion, c.APIVersion()) && !c.lower(p.APIVersion) {
		return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(
			"the daemon's API version %s is not supported by this client: the minimum is %s", p.APIVersion, MinAPIVersion))
	}
	c.agreed.Store(true)
	return nil
}

// lower goes down to the version v; false if that is no step down, or too far.
func (c *Client) lower(v string) bool {
	if c.pinned || c.agreed.Load() || !lessVersion(v, c.APIVersion()) || lessVersion(v, MinAPIVersion) {
		return false
	}
	c.version.Store(&v)
	c.agreed.Store(true)
	return true
}

// tooNew is the version that a daemon offers which refuses ours.
func tooNew(err error) string {
	var de *daemonError
	if !errors.As(err, &de) || !strings.Contains(de.text, "is too new") {
		return ""
	}
	m := regexp.MustCompile(`[Mm]aximum supported API version is (\d+\.\d+)`).FindStringSubmatch(de.text)
	if m == nil {
		return ""
	}
	return m[1]
}

// lessVersion compares "1.44" and "1.5" by their numbers.
func lessVersion(a, b string) bool {
	amajor, aminor := splitVersion(a)
	bmajor, bminor := splitVersion(b)
	return amajor < bmajor || amajor == bmajor && aminor < bminor
}

func splitVersion(v string) (major, minor int) {
	x, y, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	major, _ = strconv.Atoi(x)
	minor, _ = strconv.Atoi(y)
	return major, minor
}

// needs fails if the daemon is older than a feature.
func (c *Client) needs(ctx context.Context, version, feature string) error {
	if err := c.agree(ctx); err != nil {
		return err
	}
	if lessVersion(c.APIVersion(), version) {
		return fmt.Errorf("%q requires API version %s, but the daemon's API version is %s", feature, version, c.APIVersion())
	}
	return nil
}

// PingResult is what a daemon tells of itself to anybody.
type PingResult struct {
	APIVersion     string
	OSType         string
	BuilderVersion string
	Experimental   bool
}

// Ping asks whether a daemon answers, in whatever version.
func (c *Client) Ping(ctx context.Context) (PingResult, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.scheme+"://"+c.addr+c.base+"/_ping", nil)
	if err != nil {
		return PingResult{}, err
	}
	for k, v := range c.headers {
		req.Header.Set(k, v)
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return PingResult{}, c.connectError(err)
	}
	defer func() { _, _ = io.Copy(io.Discard, resp.Body); _ = resp.Body.Close() }()
	if resp.StatusCode >= 400 {
		return PingResult{}, responseError(resp)
	}
	return PingResult{
		APIVersion: resp.Header.Get("Api-Version"), OSType: resp.Header.Get("Ostype"),
		BuilderVersion: resp.Header.Get("Builder-Version"), Experimental: resp.Header.Get("Docker-Experimental") == "true",
	}, nil
}

// envVersion is the version that the environment asks for.
func envVersion() string { return strings.TrimPrefix(os.Getenv("DOCKER_API_VERSION"), "v") }
