package apiserver

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

func TestFindRoute(t *testing.T) {
	tab := newTable(allRoutes())
	for _, tc := range []struct{ method, path, want, name, sub string }{
		{"GET", "/containers/json", "/containers/json", "", ""},
		{"GET", "/containers/json/json", "/containers/{id}/json", "json", ""},
		{"GET", "/containers/a/attach/ws", "/containers/{id}/attach/ws", "a", ""},
		{"POST", "/containers/a/attach", "/containers/{id}/attach", "a", ""},
		{"GET", "/images/reg:5000/team/app:1/json", "/images/{name}/json", "reg:5000/team/app:1", ""},
		{"GET", "/images/a/get", "/images/{name}/get", "a", ""},
		{"GET", "/images/get", "/images/get", "", ""},
		{"DELETE", "/images/a/b@sha256:c", "/images/{name}", "a/b@sha256:c", ""},
		{"GET", "/networks/", "/networks/", "", ""},
		{"GET", "/networks/a", "/networks/{id}", "a", ""},
		{"DELETE", "/containers/a/checkpoints/b", "/containers/{id}/checkpoints/{checkpoint}", "a", "b"},
		{"GET", "/containers//json", "", "", ""},
		{"GET", "/containers/a", "", "", ""},
		{"PATCH", "/containers/json", "", "", ""},
		{"GET", "/", "", "", ""},
	} {
		r, name, sub := tab.find(tc.method, tc.path)
		got := ""
		if r != nil {
			got = r.path
		}
		if got != tc.want || name != tc.name || sub != tc.sub {
			t.Errorf("%s %s is %q %q %q, want %q %q %q", tc.method, tc.path, got, name, sub, tc.want, tc.name, tc.sub)
		}
	}
}

// TestReadersOnlyRead: who may only read reaches nothing that changes.
func TestReadersOnlyRead(t *testing.T) {
	harmless := map[string]bool{"POST /containers/{id}/wait": true}
	for _, r := range allRoutes() {
		key := r.method + " " + r.path
		if r.method != "GET" && r.method != "HEAD" && r.traits.needs() == ReadOnly && !harmless[key] {
			t.Errorf("%s needs no right to write", key)
		}
	}
	if r, _, _ := newTable(allRoutes()).find("GET", "/containers/a/attach/ws"); r.traits.needs() != Full {
		t.Error("attach/ws feeds a container's input")
	}
}

func TestSplitVersion(t *testing.T) {
	for in, want := range map[string][2]string{
		"/v1.41/info":   {"1.41", "/info"},
		"/info":         {"", "/info"},
		"/volumes":      {"", "/volumes"},
		"/v1.41":        {"1.41", "/"},
		"/version":      {"", "/version"},
		"/v1.41/v1.2/x": {"1.41", "/v1.2/x"},
		"":              {"", ""},
	} {
		if v, rest := splitVersion(in); v != want[0] || rest != want[1] {
			t.Errorf("%q is %q %q", in, v, rest)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/v1.41/containers/json", "/v1", "/v1.2.3/x", "/containers/a/checkpoints/b", "/v99999.1/x", "//", "/images/a/b/json"} {
		f.Add(s)
	}
	tab := newTable(allRoutes())
	f.Fuzz(func(t *testing.T, path string) {
		v, rest := splitVersion(path)
		if v == "" && rest != path {
			t.Errorf("%q lost something: %q", path, rest)
		}
		if n, ok := parseVersion(v); ok && (n.major < 0 || n.minor < 0) {
			t.Errorf("%q is %v", v, n)
		}
		for _, m := range []string{"GET", "POST", "DELETE"} {
			if r, name, sub := tab.find(m, rest); r != nil && strings.Contains(r.path, "{") && (name == "" || len(name)+len(sub) > len(rest)) {
				t.Errorf("%s %q is %s with %q %q", m, rest, r.path, name, sub)
			}
		}
	})
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]time.Time{
		"":                            {},
		"0":                           time.Unix(0, 0),
		"1136073845":                  time.Unix(1136073845, 0),
		"1136073845.000000001":        time.Unix(1136073845, 1),
		"1136073845.5":                time.Unix(1136073845, 5e8),
		"1136073845.0000000019":       time.Unix(1136073845, 1),
		"-5":                          time.Unix(-5, 0),
		"2006-01-02T15:04:05Z":        time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC),
		"2006-01-02T15:04:05.5+01:00": time.Date(2006, 1, 2, 14, 4, 5, 5e8, time.UTC),
	} {
		if got, err := parseTime(in); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "1.x", "1.-5", "1.+5", "2006-01-02", "2006-01-02T", "1." + strings.Repeat("1", 21)} {
		if got, err := parseTime(in); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q is %v, %v", in, got, err)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("1136073845.000000001")
	f.Add("2006-01-02T15:04:05Z")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTime(s)
		if err != nil && (!got.IsZero() || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%q: %v beside %v", s, got, err)
		}
	})
}

func FuzzParsePlatform(f *testing.F) {
	f.Add(`{"os":"linux","architecture":"arm64","variant":"v8"}`)
	f.Add(`{"os":"linux"}`)
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parsePlatform(s); err == nil && (p.OS == "" || p.Architecture == "") {
			t.Errorf("%q is %+v", s, p)
		}
	})
}

func TestParseAuth(t *testing.T) {
	js := `{"username":"u","password":"ä?>~~"}`
	for name, in := range map[string]string{
		"url alphabet, padded": base64.URLEncoding.EncodeToString([]byte(js)),
		"url alphabet":         base64.RawURLEncoding.EncodeToString([]byte(js)),
		"standard alphabet":    base64.StdEncoding.EncodeToString([]byte(js)),
	} {
		a, err := parseAuth(in)
		if err != nil || a == nil || a.Username != "u" || a.Password != "ä?>~~" {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
	for _, in := range []string{"", base64.URLEncoding.EncodeToString([]byte("{}")), "e30="} {
		if a, err := parseAuth(in); a != nil || err != nil {
			t.Errorf("%q: %+v %v", in, a, err)
		}
	}
	_, err := parseAuth(base64.URLEncoding.EncodeToString([]byte(`{"password":"secret",`)))
	if !errs.Is(err, errs.Invalid) || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	as, err := parseAuths(base64.URLEncoding.EncodeToString([]byte(`{"reg:5000":{"username":"u"}}`)))
	if err != nil || as["reg:5000"].Username != "u" {
		t.Errorf("%v %v", as, err)
	}
}

func FuzzParseAuth(f *testing.F) {
	f.Add("eyJ1c2VybmFtZSI6InUifQ==")
	f.Add("e30")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseAuth(s); err != nil && a != nil {
			t.Errorf("credentials beside %v", err)
		}
		if as, err := parseAuths(s); as == nil {
			t.Errorf("no map, %v", err)
		}
	})
}

func FuzzCreateBody(f *testing.F) {
	f.Add(`{"Image":"a","Cmd":"date","HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}}}`, 41)
	f.Add(`{"Image":"a","MacAddress":"02:42:ac:11:00:02","NetworkingConfig":{"EndpointsConfig":{"n":null}}}`, 43)
	f.Add(`{"HostConfig":{"Sysctls":{"net.ipv4.conf.eth0.x":"1"},"Mounts":[{"Type":"bind","VolumeOptions":{}}]},"Cmd":[]}`, 40)
	f.Fuzz(func(t *testing.T, body string, minor int) {
		var b createBody
		if decodeJSON(strings.NewReader(body), &b) != nil || b.complete() != nil {
			return
		}
		if _, err := adaptCreate(apiVersion{1, minor}, &b); err != nil {
			return
		}
		if b.Config == nil || b.CreateRequest.HostConfig == nil || b.NetworkingConfig == nil || b.CreateRequest.HostConfig.NetworkMode == "" {
			t.Errorf("incomplete: %+v", b.CreateRequest)
		}
		if _, err := json.Marshal(b.CreateRequest); err != nil {
			t.Errorf("cannot be stored: %v", err)
		}
	})
}
