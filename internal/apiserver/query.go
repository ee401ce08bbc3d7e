package apiserver

import (
	"encoding/json"
	"errors"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// query reads the URL's parameters as docker does.
type query url.Values

func (q query) get(key string) string    { return url.Values(q).Get(key) }
func (q query) has(key string) bool      { return url.Values(q).Has(key) }
func (q query) all(key string) []string  { return q[key] }
func (q query) flag(key string) bool     { return truth(q.get(key)) }
func (q query) fields(k string) []string { return strings.Fields(q.get(k)) }

// flagOr is flag, def if the parameter is missing.
func (q query) flagOr(key string, def bool) bool {
	if !q.has(key) {
		return def
	}
	return q.flag(key)
}

// truth: everything but these is true.
func truth(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// number returns an integer parameter, 0 if missing or empty.
func (q query) number(key string) (int64, error) {
	s := q.get(key)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errs.Newf(errs.Invalid, "invalid value %q for %q: not an integer", s, key)
	}
	return n, nil
}

// size returns the parameter of a terminal's size, which must be there.
func (q query) size(key, what string) (uint, error) {
	s := q.get(key)
	n, err := strconv.ParseInt(s, 10, 64)
	var bad *strconv.NumError
	switch {
	case errors.As(err, &bad):
		return 0, errs.Newf(errs.Invalid, "invalid resize %s %q: %w", what, s, bad.Err)
	case n < 0 || n > math.MaxUint32:
		return 0, errs.Newf(errs.Invalid, "invalid resize %s %q: %w", what, s, strconv.ErrRange)
	}
	return uint(n), nil
}

func (q query) filters() (filter.Set, error) { return filter.Parse(q.get("filters")) }

// json decodes a parameter that holds JSON; an absent one leaves v alone.
func (q query) json(key string, v any) error {
	s := q.get(key)
	if s == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(s), v); err != nil {
		return errs.Newf(errs.Invalid, "invalid JSON in %q: %w", key, err)
	}
	return nil
}

// time returns a time given as seconds[.nanoseconds] since 1970, as docker's
// clients send it, or RFC 3339; zero if absent.
func (q query) time(key string) (time.Time, error) {
	t, err := parseTime(q.get(key))
	if err != nil {
		return t, errs.Newf(errs.Invalid, "invalid value for %q: %w", key, err)
	}
	return t, nil
}

// until is time, where "0" means no end.
func (q query) until() (time.Time, error) {
	if q.get("until") == "0" {
		return time.Time{}, nil
	}
	return q.time("until")
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if strings.Contains(s, "T") {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return time.Time{}, errs.Newf(errs.Invalid, "invalid timestamp %q: not RFC 3339", s)
		}
		return t, nil
	}
	seconds, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, errs.Newf(errs.Invalid, "invalid timestamp %q: want seconds since 1970", s)
	}
	if len(frac) > 20 || strings.Trim(frac, "0123456789") != "" {
		return time.Time{}, errs.Newf(errs.Invalid, "invalid timestamp %q: bad nanoseconds", s)
	}
	nanos, _ := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	return time.Unix(sec, nanos).UTC(), nil
}

// platformName returns the platform in a parameter like "linux/arm64/v8".
func (q query) platformName(key string) (*ocispec.Platform, error) {
	s := q.get(key)
	if s == "" {
		return nil, nil //nolint:nilnil // no platform asked for
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	return &p, nil
}

// platforms returns the platforms in a parameter's values, each a JSON object.
func (q query) platforms(key string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range q.all(key) {
		if s == "" {
			continue
		}
		p, err := parsePlatform(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// platform is platforms, of which there may be one.
func (q query) platform(key string) (*ocispec.Platform, error) {
	ps, err := q.platforms(key)
	switch {
	case err != nil || len(ps) == 0:
		return nil, err
	case len(ps) > 1:
		return nil, errs.Newf(errs.Invalid, "only one %q can be given", key)
	}
	return &ps[0], nil
}

func parsePlatform(s string) (p ocispec.Platform, err error) {
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return p, errs.Newf(errs.Invalid, "failed to parse platform: %w", err)
	}
	if p.OS == "" || p.Architecture == "" {
		return p, errs.New(errs.Invalid, "both OS and Architecture must be provided")
	}
	return p, nil
}
