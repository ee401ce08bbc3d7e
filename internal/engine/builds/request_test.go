package builds

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/build"
	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/filter"
)

func ptr[T any](v T) *T { return &v }

func TestRequest(t *testing.T) {
	for name, tc := range map[string]struct {
		o     Options
		attrs map[string]string
	}{
		"nothing":    {Options{}, map[string]string{"filename": "Dockerfile"}},
		"dockerfile": {Options{Dockerfile: `.\sub\Dockerfile.dev`}, map[string]string{"filename": "sub/Dockerfile.dev"}},
		"dockerfile outside": {
			Options{Dockerfile: "../../etc/passwd"}, map[string]string{"filename": "etc/passwd"},
		},
		"arguments and labels": {
			Options{BuildArgs: map[string]*string{"A": ptr("1"), "UNSET": nil}, Labels: map[string]string{"l": "v"}},
			map[string]string{"filename": "Dockerfile", "build-arg:A": "1", "label:l": "v"},
		},
		"cache and pull": {
			Options{NoCache: true, Pull: true, Target: "t"},
			map[string]string{"filename": "Dockerfile", "no-cache": "", "image-resolve-mode": "pull", "target": "t"},
		},
		"limits": {
			Options{
				Memory: 1 << 20, MemorySwap: -1, CPUShares: 5, CPUPeriod: 6, CPUQuota: 7, CPUSetCPUs: "0", CPUSetMems: "0", ShmSize: 8, CgroupParent: "/x",
				Ulimits: []*container.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}, {Name: "core", Soft: 0, Hard: -1}},
			},
			map[string]string{
				"filename": "Dockerfile", "memory": "1048576", "memswap": "-1", "cpushares": "5", "cpuperiod": "6", "cpuquota": "7",
				"cpusetcpus": "0", "cpusetmems": "0", "shm-size": "8", "cgroup-parent": "/x", "ulimit": "nofile=1:2,core=0:-1",
			},
		},
		"hosts": {
			Options{ExtraHosts: []string{"a:192.0.2.1", "b=::1", "c:[2001:db8::1]", "gw:host-gateway"}},
			map[string]string{"filename": "Dockerfile", "add-hosts": "a=192.0.2.1,b=::1,c=2001:db8::1,gw=198.51.100.1"},
		},
		"remote":   {Options{Remote: "https://example.com/x.git#main"}, map[string]string{"filename": "Dockerfile", "context": "https://example.com/x.git#main"}},
		"platform": {Options{Platform: "linux/aarch64"}, map[string]string{"filename": "Dockerfile", "platform": "linux/arm64"}},
		"network":  {Options{NetworkMode: "net1"}, map[string]string{"filename": "Dockerfile", "force-network-mode": "net1"}},
		"none":     {Options{NetworkMode: "none"}, map[string]string{"filename": "Dockerfile", "force-network-mode": "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			req, _, err := request(tc.o, net.ParseIP("198.51.100.1"))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.attrs, req.Attrs); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRequestRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		o    Options
		kind errs.Kind
	}{
		"bad tag":                 {Options{Tags: []string{"UPPER"}}, errs.Invalid},
		"tag with digest":         {Options{Tags: []string{"a@sha256:" + strings.Repeat("0", 64)}}, errs.Invalid},
		"bad platform":            {Options{Platform: "no/such/thing/here"}, errs.Invalid},
		"squash":                  {Options{Squash: true}, errs.Unsupported},
		"network of no container": {Options{NetworkMode: "container:"}, errs.Invalid},
		"host without address":    {Options{ExtraHosts: []string{"a"}}, errs.Invalid},
		"host with a comma":       {Options{ExtraHosts: []string{"a,b:192.0.2.1"}}, errs.Invalid},
		"no gateway":              {Options{ExtraHosts: []string{"a:host-gateway"}}, errs.Invalid},
		"negative memory":         {Options{Memory: -1}, errs.Invalid},
		"local path as remote":    {Options{Remote: "/etc"}, errs.Invalid},
		"session without id":      {Options{Remote: "client-session"}, errs.Invalid},
		"unknown output":          {Options{Outputs: []map[string]string{{"type": "floppy"}}}, errs.Invalid},
		"ulimit with a comma":     {Options{Ulimits: []*container.Ulimit{{Name: "a,b"}}}, errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := request(tc.o, nil); errs.KindOf(err) != tc.kind || err == nil {
				t.Errorf("got %v (%v), want %v", err, errs.KindOf(err), tc.kind)
			}
		})
	}
}

func TestOutputsAndNames(t *testing.T) {
	req, names, err := request(Options{Tags: []string{"a", "a:latest", "example.com/b:2"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a:latest", "example.com/b:2"}, names); d != "" {
		t.Error(d)
	}
	want := []build.Output{{Type: "moby", Attrs: map[string]string{"name": "docker.io/library/a:latest,example.com/b:2"}}}
	if d := cmp.Diff(want, req.Outputs); d != "" {
		t.Error(d)
	}
	req, _, err = request(Options{Outputs: []map[string]string{{"type": "cacheonly"}}}, nil)
	if err != nil || len(req.Outputs) != 0 {
		t.Errorf("cacheonly: %v %v", req.Outputs, err)
	}
	req, _, err = request(Options{NetworkMode: "host"}, nil)
	if err != nil || len(req.Entitlements) != 1 || req.Entitlements[0] != "network.host" {
		t.Errorf("host network asks for %v, %v", req.Entitlements, err)
	}
}

func TestCredentials(t *testing.T) {
	get := credentials(map[string]registry.AuthConfig{
		"https://index.docker.io/v1/": {Username: "hub", Password: "p"},
		"example.com":                 {IdentityToken: "tok"},
	})
	for host, want := range map[string][2]string{
		"registry-1.docker.io": {"hub", "p"}, "example.com": {"", "tok"}, "other.com": {"", ""},
	} {
		if u, s := get(host); u != want[0] || s != want[1] {
			t.Errorf("%s: %q %q", host, u, s)
		}
	}
}

func TestCacheFilters(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		in   filter.Set
		want []string
		keep time.Duration
	}{
		"none":     {nil, nil, 0},
		"id":       {filter.Set{"id": {"abc"}}, []string{`id~="^abc"`}, 0},
		"several":  {filter.Set{"type": {"regular"}, "inuse": {"true"}, "private": {"1"}}, []string{`type=="regular",inuse==true,shared!=true`}, 0},
		"not":      {filter.Set{"shared": {"false"}}, []string{"shared!=true"}, 0},
		"duration": {filter.Set{"until": {"24h"}}, nil, 24 * time.Hour},
		"unix":     {filter.Set{"until": {"1795435200"}}, nil, now.Sub(time.Unix(1795435200, 0))},
		"date":     {filter.Set{"unused-for": {"2026-11-23T11:00:00Z"}}, nil, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			got, keep, err := CacheFilters(tc.in, now)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" || keep != max(0, tc.keep) {
				t.Errorf("%s keep %v, want %v", d, keep, tc.keep)
			}
		})
	}
	for _, bad := range []filter.Set{{"nope": {"1"}}, {"until": {"soon"}}, {"id": {"a", "b"}}, {"until": {"1h"}, "unused-for": {"1h"}}} {
		if _, _, err := CacheFilters(bad, now); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
