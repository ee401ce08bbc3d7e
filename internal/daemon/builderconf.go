package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/engine/builds"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

// builderFlag is the key "builder" of daemon.json.
type builderFlag struct {
	raw string

	GC           builderGC
	Entitlements struct {
		NetworkHost      *bool `json:"network-host"`
		SecurityInsecure *bool `json:"security-insecure"`
		Device           *bool `json:"device"`
	}
	History *json.RawMessage
}

type builderGC struct {
	Enabled              *bool
	Policy               []builderRule
	DefaultReservedSpace space
	DefaultKeepStorage   space // its name of before
	DefaultMaxUsedSpace  space
	DefaultMinFreeSpace  space
}

type builderRule struct {
	All           bool
	Filter        ruleFilter
	ReservedSpace space
	KeepStorage   space
	MaxUsedSpace  space
	MinFreeSpace  space
}

// space is "10GB", or "20%" of the disk.
type space string

func (s space) bytes(total int64) (int64, error) {
	text := strings.TrimSpace(string(s))
	if text == "" {
		return 0, nil
	}
	if p, ok := strings.CutSuffix(text, "%"); ok {
		var n int64
		if _, err := fmt.Sscanf(p, "%d", &n); err != nil || n < 0 || n > 100 {
			return 0, fmt.Errorf("invalid space %q: want a size, or 0%% to 100%%", text)
		}
		return total / 100 * n, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil {
		return 0, fmt.Errorf("invalid space %q: %w", text, err)
	}
	return n, nil
}

// ruleFilter is ["unused-for=48h", …], or the map it was by mistake once.
type ruleFilter filter.Set

// UnmarshalJSON implements [json.Unmarshaler].
func (f *ruleFilter) UnmarshalJSON(data []byte) error {
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		set, ferr := filter.Parse(string(data))
		if ferr != nil {
			return err
		}
		*f = ruleFilter(set)
		return nil
	}
	set := filter.Set{}
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		k = strings.ToLower(strings.TrimSpace(k))
		set[k] = append(set[k], strings.TrimSpace(v))
	}
	*f = ruleFilter(set)
	return nil
}

func (b *builderFlag) String() string { return b.raw }
func (b *builderFlag) Type() string   { return "json" }

// Set takes the key's JSON.
func (b *builderFlag) Set(s string) error { return b.setJSON(json.RawMessage(s)) }

func (b *builderFlag) setJSON(raw json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(b); err != nil {
		return fmt.Errorf("builder: %w", err)
	}
	b.raw = string(raw)
	return nil
}

// check refuses what the builder does not offer.
func (b *builderFlag) check() error {
	on := func(v *bool) bool { return v != nil && *v }
	switch {
	case on(b.Entitlements.SecurityInsecure):
		return fmt.Errorf("entitlement security-insecure is not supported: no step of a build is privileged")
	case on(b.Entitlements.Device):
		return fmt.Errorf("entitlement device is not supported: steps of a build get no devices")
	case b.History != nil:
		return fmt.Errorf("history is not supported: how much of it is kept is fixed")
	}
	_, err := b.limits(1 << 40)
	return err
}

// hostNetwork reports whether steps may ask for the host's network.
func (b *builderFlag) hostNetwork() bool {
	return b.Entitlements.NetworkHost == nil || *b.Entitlements.NetworkHost
}

// limits are the build cache's, on a disk of so many bytes.
func (b *builderFlag) limits(disk int64) (out build.CacheLimits, err error) {
	g := b.GC
	out.Disabled = g.Enabled != nil && !*g.Enabled
	read := func(into *int64, ss ...space) {
		for _, s := range ss {
			if *into == 0 && err == nil {
				*into, err = s.bytes(disk)
			}
		}
	}
	read(&out.ReservedSpace, g.DefaultReservedSpace, g.DefaultKeepStorage)
	read(&out.MaxUsedSpace, g.DefaultMaxUsedSpace)
	read(&out.MinFreeSpace, g.DefaultMinFreeSpace)
	for _, r := range g.Policy {
		rule := build.PruneOptions{All: r.All}
		read(&rule.ReservedSpace, r.ReservedSpace, r.KeepStorage)
		read(&rule.MaxUsedSpace, r.MaxUsedSpace)
		read(&rule.MinFreeSpace, r.MinFreeSpace)
		var ferr error
		if rule.Filters, rule.KeepDuration, ferr = builds.CacheFilters(filter.Set(r.Filter), time.Now()); err == nil {
			err = ferr
		}
		out.Policy = append(out.Policy, rule)
	}
	return out, err
}
