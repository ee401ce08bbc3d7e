//go:build root

package api

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// registry is where the engine of a test serves its own registry.
const registry = "127.0.0.1:5000"

// visit is a call of a route; %s in path and body stand for what earlier calls
// made, see fill.
type visit struct {
	route   string // as the description names it
	path    string // "" is the route itself
	body    string
	want    int    // the status
	message string // part of an error's text
	headers []string
}

const (
	noManager = "This node is not a swarm manager."
	noSwarm   = "This node is not part of a swarm"
	noPlugin  = `plugin "p" not found`
)

// visits call every route of the description; the order matters.
var visits = []visit{
	{route: "GET /_ping", want: 200},
	{route: "HEAD /_ping", want: 200},
	{route: "GET /version", want: 200},
	{route: "GET /info", want: 200},
	{route: "POST /auth", body: `{"username":"u","password":"p","serveraddress":"REG"}`, want: 200},
	{route: "GET /containers/json", path: "/containers/json?all=1&size=1&limit=5&filters={}", want: 200},
	{route: "POST /containers/create", path: "/containers/create?name=made&platform=linux/amd64", body: `{"Image":"img","Cmd":["sh"],"Tty":true,"OpenStdin":true}`, want: 201},
	{route: "POST /containers/create", path: "/containers/create?name=made", body: `{"Image":"img"}`, want: 409, message: "is already in use by container"},
	{route: "POST /containers/create", body: `{"Image":"nosuch"}`, want: 404, message: "No such image: nosuch"},
	{route: "POST /containers/create", body: `{"Image":1}`, want: 400, message: "JSON"},
	{route: "POST /containers/{id}/start", path: "/containers/made/start?detachKeys=ctrl-a", want: 204},
	{route: "POST /containers/{id}/start", path: "/containers/made/start", want: 304},
	{route: "POST /containers/{id}/start", path: "/containers/nosuch/start", want: 404, message: "No such container: nosuch"},
	{route: "GET /containers/{id}/json", path: "/containers/made/json?size=1", want: 200},
	{route: "GET /containers/{id}/json", path: "/containers/up/json", want: 200},
	{route: "GET /containers/{id}/top", path: "/containers/up/top", want: 200},
	{route: "GET /containers/{id}/top", path: "/containers/up/top?ps_args=-o+pid,args", want: 200},
	{route: "GET /containers/{id}/logs", path: "/containers/up/logs?stdout=1&stderr=1&since=0&until=0&timestamps=1&tail=5", want: 200},
	{route: "GET /containers/{id}/logs", path: "/containers/up/logs", want: 400, message: "at least one of"},
	{route: "GET /containers/{id}/changes", path: "/containers/up/changes", want: 200},
	{route: "GET /containers/{id}/export", path: "/containers/up/export", want: 200},
	{route: "GET /containers/{id}/stats", path: "/containers/up/stats?stream=0", want: 200},
	{route: "GET /containers/{id}/stats", path: "/containers/up/stats?stream=0&one-shot=1", want: 200},
	{route: "POST /containers/{id}/resize", path: "/containers/made/resize?h=30&w=90", want: 200},
	{route: "POST /containers/{id}/resize", path: "/containers/made/resize?h=x&w=90", want: 400, message: "invalid resize height"},
	{route: "POST /containers/{id}/attach", path: "/containers/up/attach?logs=1&stdout=1&stderr=1", headers: []string{"Upgrade", "tcp", "Connection", "Upgrade"}, want: 101},
	{route: "POST /containers/{id}/attach", path: "/containers/up/attach?logs=1&stdout=1&stderr=1", want: 200},
	{route: "POST /containers/{id}/attach", path: "/containers/nosuch/attach", want: 404, message: "No such container"},
	{route: "GET /containers/{id}/attach/ws", path: "/containers/up/attach/ws?logs=1&stdout=1", headers: []string{"Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version", "13", "Origin", "http://skiff"}, want: 101},
	{route: "POST /containers/{id}/stop", path: "/containers/made/stop?signal=KILL&t=0", want: 204},
	{route: "POST /containers/{id}/stop", path: "/containers/made/stop", want: 304},
	{route: "POST /containers/{id}/wait", path: "/containers/made/wait?condition=not-running", want: 200},
	{route: "POST /containers/{id}/wait", path: "/containers/made/wait?condition=nosuch", want: 400, message: "invalid condition"},
	{route: "POST /containers/{id}/restart", path: "/containers/up/restart?signal=KILL&t=0", want: 204},
	{route: "POST /containers/{id}/kill", path: "/containers/made/kill", want: 409, message: "is not running"},
	{route: "POST /containers/{id}/kill", path: "/containers/up/kill?signal=nosuch", want: 400, message: "signal"},
	{route: "POST /containers/{id}/kill", path: "/containers/up/kill?signal=CONT", want: 204},
	{route: "POST /containers/{id}/update", path: "/containers/up/update", body: `{"Memory":67108864,"MemorySwap":67108864}`, want: 200},
	{route: "POST /containers/{id}/rename", path: "/containers/made/rename?name=named", want: 204},
	{route: "POST /containers/{id}/rename", path: "/containers/named/rename?name=up", want: 409, message: "is already in use"},
	{route: "POST /containers/{id}/pause", path: "/containers/up/pause", want: 204},
	{route: "POST /containers/{id}/unpause", path: "/containers/up/unpause", want: 204},
	{route: "PUT /containers/{id}/archive", path: "/containers/up/archive?path=/&noOverwriteDirNonDir=1&copyUIDGID=1", body: "TAR", want: 200},
	{route: "PUT /containers/{id}/archive", path: "/containers/up/archive?path=/nosuch", body: "TAR", want: 404, message: "Could not find the file"},
	{route: "HEAD /containers/{id}/archive", path: "/containers/up/archive?path=/bin/sh", want: 200},
	{route: "HEAD /containers/{id}/archive", path: "/containers/up/archive?path=/nosuch", want: 404},
	{route: "GET /containers/{id}/archive", path: "/containers/up/archive?path=/bin/sh", want: 200},
	{route: "GET /containers/{id}/archive", path: "/containers/up/archive", want: 400, message: "path cannot be empty"},
	{route: "POST /containers/{id}/exec", path: "/containers/up/exec", body: `{"Cmd":["echo","hi"],"AttachStdout":true}`, want: 201},
	{route: "POST /containers/{id}/exec", path: "/containers/up/exec", body: `{}`, want: 400, message: "No exec command specified"},
	{route: "POST /containers/{id}/exec", path: "/containers/named/exec", body: `{"Cmd":["true"]}`, want: 409, message: "is not running"},
	{route: "GET /exec/{id}/json", path: "/exec/EXEC/json", want: 200},
	{route: "POST /exec/{id}/start", path: "/exec/EXEC/start", body: `{"Detach":false,"Tty":false}`, want: 200},
	{route: "POST /exec/{id}/start", path: "/exec/nosuch/start", body: `{}`, want: 404, message: "No such exec instance"},
	{route: "POST /exec/{id}/resize", path: "/exec/EXECTTY/resize?h=20&w=40", want: 200},
	{route: "POST /commit", path: "/commit?container=up&repo=committed&tag=1&comment=c&author=me&pause=1&changes=ENV+A%3D1", body: `{"Labels":{"a":"b"}}`, want: 201},
	{route: "DELETE /containers/{id}", path: "/containers/named?v=1&force=0", want: 204},
	{route: "DELETE /containers/{id}", path: "/containers/named", want: 404, message: "No such container"},
	{route: "DELETE /containers/{id}", path: "/containers/up", want: 409, message: "container is running"},
	{route: "DELETE /containers/{id}", path: "/containers/up?link=1", want: 500, message: "cannot remove the default link name of the container"},
	{route: "POST /containers/prune", path: `/containers/prune?filters={"until":["24h"]}`, want: 200},

	{route: "GET /images/json", path: "/images/json?all=1&shared-size=1&digests=1&manifests=1", want: 200},
	{route: "GET /images/json", path: "/images/json?manifests=1&identity=1", want: 501, message: "identities of images are not supported"},
	{route: "DELETE /images/{name}", path: "/images/img", want: 409, message: "is using"},
	{route: "POST /images/{name}/tag", path: "/images/img/tag?repo=REG/a/b&tag=1", want: 201},
	{route: "POST /images/{name}/tag", path: "/images/nosuch/tag?repo=x", want: 404, message: "No such image"},
	{route: "POST /images/{name}/push", path: "/images/REG/a/b/push?tag=1", headers: []string{"X-Registry-Auth", "e30="}, want: 200},
	{route: "POST /images/create", path: "/images/create?fromImage=REG/a/b&tag=1&platform=linux/amd64", headers: []string{"X-Registry-Auth", "e30="}, want: 200},
	{route: "POST /images/create", path: "/images/create?fromSrc=-&repo=imported&tag=1&message=m&changes=ENV+A%3D1", body: "TAR", want: 200},
	{route: "POST /images/create", path: "/images/create?fromImage=REG/no/such&tag=1", want: 404, message: "not found"},
	{route: "GET /images/{name}/json", path: "/images/img/json", want: 200},
	{route: "GET /images/{name}/json", path: "/images/img/json?manifests=1", want: 200},
	{route: "GET /images/{name}/json", path: "/images/nosuch/json", want: 404, message: "No such image"},
	{route: "GET /images/{name}/history", path: "/images/img/history", want: 200},
	{route: "GET /images/{name}/attestations", path: "/images/img/attestations", want: 501, message: "attestations of images are not supported"},
	{route: "GET /images/search", path: "/images/search?term=REG/a&limit=5", want: 200},
	{route: "GET /distribution/{name}/json", path: "/distribution/REG/a/b:1/json", want: 200},
	{route: "GET /distribution/{name}/json", path: "/distribution/REG/no/such:1/json", want: 404, message: "not found"},
	{route: "GET /images/{name}/get", path: "/images/img/get", want: 200},
	{route: "GET /images/get", path: "/images/get?names=img&names=REG/a/b:1", want: 200},
	{route: "POST /images/load", path: "/images/load?quiet=1", body: "IMAGE", want: 200},
	{route: "DELETE /images/{name}", path: "/images/imported:1?force=1&noprune=1", want: 200},
	{route: "DELETE /images/{name}", path: "/images/nosuch", want: 404, message: "No such image"},
	{route: "POST /images/prune", path: `/images/prune?filters={"dangling":["true"]}`, want: 200},
	{route: "POST /build", path: "/build?t=built&q=1&version=1", body: "CONTEXT", want: 200},
	{route: "POST /build/prune", path: "/build/prune?all=1", want: 200},
	{route: "POST /session", headers: []string{"Upgrade", "h2c", "Connection", "Upgrade", "X-Docker-Expose-Session-Uuid", "id"}, want: 101},
	{route: "POST /session", want: 400, message: "no upgrade proto in request"},

	{route: "POST /volumes/create", body: `{"Name":"v1","Driver":"local","Labels":{"a":"b"}}`, want: 201},
	{route: "GET /volumes", path: `/volumes?filters={"name":["v1"]}`, want: 200},
	{route: "GET /volumes/{name}", path: "/volumes/v1", want: 200},
	{route: "GET /volumes/{name}", path: "/volumes/nosuch", want: 404, message: "no such volume"},
	{route: "PUT /volumes/{name}", path: "/volumes/v1?version=1", body: `{"Spec":{}}`, want: 503, message: "swarm is unavailable"},
	{route: "DELETE /volumes/{name}", path: "/volumes/v1?force=1", want: 204},
	{route: "DELETE /volumes/{name}", path: "/volumes/v1", want: 404, message: "no such volume"},
	{route: "POST /volumes/prune", want: 200},

	{route: "POST /networks/create", body: `{"Name":"net1","Labels":{"a":"b"},"IPAM":{"Config":[{"Subnet":"10.77.0.0/24"}]}}`, want: 201},
	{route: "POST /networks/create", body: `{"Name":"net1"}`, want: 409, message: "already exists"},
	{route: "GET /networks", path: `/networks?filters={"name":["net1"]}`, want: 200},
	{route: "POST /networks/{id}/connect", path: "/networks/net1/connect", body: `{"Container":"up","EndpointConfig":{"Aliases":["x"]}}`, want: 200},
	{route: "GET /networks/{id}", path: "/networks/net1?verbose=1&scope=local", want: 200},
	{route: "GET /networks/{id}", path: "/networks/net1?scope=swarm", want: 404, message: "network net1 not found"},
	{route: "DELETE /networks/{id}", path: "/networks/net1", want: 403, message: "has active endpoints"},
	{route: "POST /networks/{id}/disconnect", path: "/networks/net1/disconnect", body: `{"Container":"up","Force":true}`, want: 200},
	{route: "DELETE /networks/{id}", path: "/networks/net1", want: 204},
	{route: "POST /networks/prune", want: 200},

	{route: "GET /events", path: "/events?since=1&until=2", want: 200},
	{route: "GET /events", path: `/events?since=1&until=NOW&filters={"type":["container"]}`, want: 200},
	{route: "GET /system/df", want: 200},
	{route: "GET /system/df", path: "/system/df?verbose=1&type=image&type=container&type=volume&type=build-cache", want: 200},

	{route: "GET /plugins", want: 200},
	{route: "GET /plugins/privileges", path: "/plugins/privileges?remote=a/b", want: 501, message: "managed plugins are not supported"},
	{route: "POST /plugins/pull", path: "/plugins/pull?remote=a/b", body: "[]", want: 501, message: "managed plugins are not supported"},
	{route: "POST /plugins/create", path: "/plugins/create?name=p", body: "TAR", want: 501, message: "managed plugins are not supported"},
	{route: "GET /plugins/{name}/json", path: "/plugins/p/json", want: 404, message: noPlugin},
	{route: "DELETE /plugins/{name}", path: "/plugins/p", want: 404, message: noPlugin},
	{route: "POST /plugins/{name}/enable", path: "/plugins/p/enable", want: 404, message: noPlugin},
	{route: "POST /plugins/{name}/disable", path: "/plugins/p/disable", want: 404, message: noPlugin},
	{route: "POST /plugins/{name}/upgrade", path: "/plugins/p/upgrade?remote=a/b", body: "[]", want: 404, message: noPlugin},
	{route: "POST /plugins/{name}/push", path: "/plugins/p/push", want: 404, message: noPlugin},
	{route: "POST /plugins/{name}/set", path: "/plugins/p/set", body: `["A=1"]`, want: 404, message: noPlugin},

	{route: "POST /swarm/init", body: `{"ListenAddr":"0.0.0.0"}`, want: 501, message: "swarm mode is not supported"},
	{route: "POST /swarm/join", body: `{}`, want: 501, message: "swarm mode is not supported"},
	{route: "POST /swarm/leave", want: 503, message: noSwarm},
	{route: "POST /swarm/unlock", body: `{}`, want: 503, message: noManager},
}

// managers are the routes that only a swarm's manager answers.
var managers = strings.Fields(`GET/swarm POST/swarm/update GET/swarm/unlockkey
GET/services POST/services/create GET/services/{id} DELETE/services/{id} POST/services/{id}/update GET/services/{id}/logs
GET/nodes GET/nodes/{id} DELETE/nodes/{id} POST/nodes/{id}/update GET/tasks GET/tasks/{id} GET/tasks/{id}/logs
GET/secrets POST/secrets/create GET/secrets/{id} DELETE/secrets/{id} POST/secrets/{id}/update
GET/configs POST/configs/create GET/configs/{id} DELETE/configs/{id} POST/configs/{id}/update`)

// besides are fields of answers that the description of the newest version does
// not name, by where they are.
var besides = map[string][]string{
	// Docker repeats these for clients that ask without a version; see
	// internal/apiserver.
	"GET /system/df": {"answer.LayersSize", "answer.Images", "answer.Containers", "answer.Volumes", "answer.BuildCache", "answer.BuilderSize"},
	"GET /events":    {"answer.status", "answer.id", "answer.from"},
	"GET /containers/{id}/json": {
		"answer.NetworkSettings.EndpointID", "answer.NetworkSettings.Gateway", "answer.NetworkSettings.IPAddress",
		"answer.NetworkSettings.IPPrefixLen", "answer.NetworkSettings.IPv6Gateway", "answer.NetworkSettings.MacAddress",
		"answer.NetworkSettings.GlobalIPv6Address", "answer.NetworkSettings.GlobalIPv6PrefixLen",
	},
}

// outside are statuses the description forgets to name, though docker answers
// with them.
var outside = []string{
	"POST /containers/{id}/resize 400", "POST /containers/{id}/kill 400", "POST /containers/{id}/exec 400",
	"GET /containers/{id}/logs 400", "POST /networks/create 409", "GET /distribution/{name}/json 404", "GET /images/json 501",
}

// TestEveryRoute calls each route of the description and compares what comes
// back with it.
func TestEveryRoute(t *testing.T) {
	sp := loadSpec(t)
	e := start(t, "--registry", registry)
	fill := prepare(e)
	seen := map[string]bool{}
	for _, v := range allVisits() {
		seen[v.route] = true
		method, route, _ := strings.Cut(v.route, " ")
		t.Run(strings.ReplaceAll(v.route, "/", "_"), func(t *testing.T) {
			e.t = t
			op, ok := sp.Paths[route][strings.ToLower(method)]
			if !ok {
				t.Fatal("not in the description")
			}
			path := v.path
			if path == "" {
				path = route
			}
			got := e.call(method, escape(fill(path)), []byte(fill(v.body)), v.headers...)
			if got.code != v.want || !strings.Contains(got.message(), v.message) {
				t.Fatalf("%s: status %d, want %d %q: %s", path, got.code, v.want, v.message, got.body)
			}
			code := fmt.Sprint(got.code)
			rep, ok := op.Responses[code]
			if !ok && !slices.Contains(outside, v.route+" "+code) && code != "501" {
				t.Errorf("status %s is not in the description", code)
			}
			if len(got.body) == 0 || !strings.HasPrefix(got.header.Get("Content-Type"), "application/json") || method == "HEAD" {
				return
			}
			answer, err := got.value()
			if err != nil {
				t.Fatalf("%v: %s", err, got.body)
			}
			for _, bad := range sp.check("answer", rep.Schema, answer, besides[v.route]) {
				t.Error(bad)
			}
		})
	}
	for path, ops := range sp.Paths {
		for method := range ops {
			if route := strings.ToUpper(method) + " " + path; !seen[route] {
				t.Errorf("%s was not called", route)
			}
		}
	}
}

func allVisits() []visit {
	all := slices.Clone(visits)
	for _, m := range managers {
		method, path, _ := strings.Cut(m, "/")
		all = append(all, visit{route: method + " /" + path, path: "/" + strings.ReplaceAll(path, "{id}", "x"), want: 503, message: noManager})
	}
	return all
}

// escape leaves a path readable in the table above.
func escape(path string) string {
	return strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D", "[", "%5B", "]", "%5D").Replace(path)
}

// prepare makes what the visits ask about, and returns what puts it in their
// paths and bodies.
func prepare(e *engine) func(string) string {
	up := e.must("POST", "/containers/create?name=up", `{"Image":"img","Cmd":["sh","-c","echo out; exec sleep 1000"],"HostConfig":{"Binds":["/anon"],"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1"}]}}}`, "Id")
	e.must("POST", "/containers/"+up+"/start", "", "")
	exec := func(body string) string { return e.must("POST", "/containers/up/exec", body, "Id") }
	image := e.call("GET", "/images/img/get", nil).body
	dockerfile := "FROM img\nRUN true\n"
	var lateExec, lateTTY string // restarting the container forgets them
	return func(s string) string {
		switch s {
		case "TAR":
			return string(tarOf(e.t, "f", "content"))
		case "IMAGE":
			return string(image)
		case "CONTEXT":
			return string(tarOf(e.t, "Dockerfile", dockerfile))
		}
		if strings.Contains(s, "EXECTTY") && lateTTY == "" {
			lateTTY = exec(`{"Cmd":["sleep","1000"],"Tty":true,"AttachStdout":true}`)
			e.must("POST", "/exec/"+lateTTY+"/start", `{"Detach":true,"Tty":true}`, "")
		}
		if strings.Contains(s, "EXEC/") && lateExec == "" {
			lateExec = exec(`{"Cmd":["echo","hi"],"AttachStdout":true}`)
		}
		now := e.must("GET", "/info", "", "SystemTime")
		return strings.NewReplacer("REG", registry, "EXECTTY", lateTTY, "EXEC", lateExec, "NOW", now).Replace(s)
	}
}

// TestHeads: what a client learns from headers alone.
func TestHeads(t *testing.T) {
	e := start(t)
	a := e.call("HEAD", "/_ping", nil)
	for name, want := range map[string]string{"Api-Version": "1.56", "Ostype": "linux", "Builder-Version": "2", "Swarm": "inactive", "Docker-Experimental": "false"} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	e.must("POST", "/containers/create?name=box", `{"Image":"img"}`, "")
	stat := e.call("HEAD", "/containers/box/archive?path=/bin/sh", nil).header.Get("X-Docker-Container-Path-Stat")
	b, err := base64.StdEncoding.DecodeString(stat)
	if err != nil || !bytes.Contains(b, []byte(`"name":"sh"`)) {
		t.Errorf("path stat %q: %v", b, err)
	}
}
