//go:build root

package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// filters are those of each list and prune, each with a value that means
// something; the documentation of docker names them.
var filters = map[string]string{
	"GET /containers/json":   "ancestor=img before=up expose=80/tcp exited=0 health=none id=a is-task=false isolation=default label=a label=a=b name=up network=bridge publish=80 since=up status=running volume=/v",
	"GET /images/json":       "before=img dangling=true dangling=false label=a reference=i* since=img until=24h",
	"GET /volumes":           "dangling=true driver=local label=a name=v",
	"GET /networks":          "dangling=false driver=bridge id=a label=a name=n scope=local type=custom type=builtin",
	"GET /events":            "config=a container=up daemon=a event=die image=img label=a network=n node=a plugin=a scope=local secret=a service=a type=container volume=v",
	"POST /containers/prune": "until=24h label=a label!=a",
	"POST /images/prune":     "dangling=true until=24h label=a label!=a",
	"POST /volumes/prune":    "label=a label!=a all=false",
	"POST /networks/prune":   "until=24h label=a label!=a",
	"POST /build/prune":      "until=24h id=a parent=a type=regular description=a inuse=false shared=false private=true",
	"GET /plugins":           "capability=a enable=true",
	"GET /images/search":     "is-official=true stars=3",
}

// bad are values that a filter cannot have.
var bad = map[string]string{
	"GET /containers/json":   "status=nosuch exited=x health=nosuch is-task=x publish=x/y/z before=nosuch since=nosuch",
	"GET /images/json":       "dangling=x until=nonsense",
	"GET /volumes":           "dangling=x",
	"GET /networks":          "dangling=x type=nosuch",
	"POST /containers/prune": "until=nonsense",
	"POST /images/prune":     "until=nonsense dangling=x",
	"POST /volumes/prune":    "all=x",
	"POST /networks/prune":   "until=nonsense",
	"GET /images/search":     "is-official=x stars=x",
}

// TestFilters: every filter of docker's is known everywhere, and no other.
func TestFilters(t *testing.T) {
	e := start(t, "--registry", registry)
	id := e.must("POST", "/containers/create?name=up", `{"Image":"img","Cmd":["sleep","10000"]}`, "Id")
	e.must("POST", "/containers/"+id+"/start", "", "")
	ask := func(route, key, value string) answer {
		method, path, _ := strings.Cut(route, " ")
		q := url.Values{"filters": {fmt.Sprintf(`{%q:[%q]}`, key, value)}}
		switch path {
		case "/events":
			q.Set("until", "1")
		case "/images/search":
			q.Set("term", registry+"/a")
		}
		return e.call(method, path+"?"+q.Encode(), nil)
	}
	for route, list := range filters {
		for f := range strings.FieldsSeq(list) {
			key, value, _ := strings.Cut(strings.Replace(f, "!=", "!\x00", 1), "=")
			if k, v, ok := strings.Cut(f, "!="); ok {
				key, value = k+"!", v
			}
			if a := ask(route, key, value); a.code != 200 {
				t.Errorf("%s with %s: %d %s", route, f, a.code, a.body)
			}
		}
		if a := ask(route, "nosuch", "1"); a.code != 400 || !strings.Contains(a.message(), "invalid filter 'nosuch'") {
			t.Errorf("%s with an unknown filter: %d %s", route, a.code, a.body)
		}
		for f := range strings.FieldsSeq(bad[route]) {
			key, value, _ := strings.Cut(f, "=")
			if a := ask(route, key, value); a.code < 400 || a.code >= 500 {
				t.Errorf("%s with %s: %d %s", route, f, a.code, a.body)
			}
		}
		method, path, _ := strings.Cut(route, " ")
		if a := e.call(method, path+"?term=x&filters=nonsense", nil); a.code != 400 {
			t.Errorf("%s with filters that are no JSON: %d %s", route, a.code, a.body)
		}
	}
	// The form of docker 1.x: a set instead of a list.
	if got := e.must("GET", "/containers/json?filters="+url.QueryEscape(`{"name":{"up":true}}`), "", "0/Names/0"); got != "/up" {
		t.Errorf("filters as sets: %s", got)
	}
}

// TestOldVersions: every version that is offered answers, each in its own form.
func TestOldVersions(t *testing.T) {
	e := start(t)
	for minor := 24; minor <= 56; minor++ {
		v := fmt.Sprintf("/v1.%d", minor)
		name := fmt.Sprintf("old%d", minor)
		e.must("POST", v+"/containers/create?name="+name, `{"Image":"img","Cmd":["sh","-c","echo hi; exec sleep 1000"],"HostConfig":{"Memory":33554432}}`, "")
		e.must("POST", v+"/containers/"+name+"/start", "", "")
		if got := e.must("GET", v+"/containers/"+name+"/json", "", "NetworkSettings/Networks/bridge/IPAddress"); !strings.HasPrefix(got, "172.17.") {
			t.Errorf("%s: address %s", v, got)
		}
		paths := []string{
			"/containers/json?all=1", "/images/json", "/images/img/json", "/networks", "/volumes", "/info", "/version", "/system/df",
			"/containers/" + name + "/top", "/containers/" + name + "/changes", "/containers/" + name + "/logs?stdout=1",
		}
		if minor == 24 { // a sample takes a second
			paths = append(paths, "/containers/"+name+"/stats?stream=0")
		}
		for _, path := range paths {
			if a := e.call("GET", v+path, nil); a.code != 200 {
				t.Errorf("%s%s: %d %s", v, path, a.code, a.body)
			}
		}
		e.must("DELETE", v+"/containers/"+name+"?force=1", "", "")
	}
	for path, text := range map[string]string{"/v1.23/info": "client version 1.23 is too old. Minimum supported API version is 1.24", "/v1.57/info": "client version 1.57 is too new"} {
		if a := e.call("GET", path, nil); a.code != 400 || !strings.Contains(string(a.body), text) {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
	for _, tc := range []struct{ version, path, is string }{
		{"1.39", "IpcMode", "shareable"}, {"1.40", "IpcMode", "private"},
	} {
		id := e.must("POST", "/v"+tc.version+"/containers/create", `{"Image":"img"}`, "Id")
		if got := e.must("GET", "/containers/"+id+"/json", "", "HostConfig/"+tc.path); got != tc.is {
			t.Errorf("%s in %s is %s, want %s", tc.path, tc.version, got, tc.is)
		}
	}
}
