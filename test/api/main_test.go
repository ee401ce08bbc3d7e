//go:build root

// Package api calls every route of docker's description of its API on the real
// skiffd, and tries every field of every request.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"

	"github.com/skiff-containers/skiff/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// engine is a daemon with the image "img" in it, and a way to call it.
type engine struct {
	*harness.Daemon
	t    *testing.T
	http *http.Client
}

func start(t *testing.T, args ...string) *engine {
	t.Helper()
	e := &engine{Daemon: harness.Start(t, args...), t: t}
	e.RunIn(harness.BusyboxTar(t), "docker", "import", "-c", `CMD ["sh"]`, "-c", "ENV PATH=/bin", "-", "img")
	e.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.Sock)
		},
	}}
	t.Cleanup(e.http.CloseIdleConnections)
	return e
}

// answer is what a call got.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// value is the body as JSON, of which there may be several after each other:
// the first.
func (a answer) value() (v any, err error) {
	err = json.NewDecoder(bytes.NewReader(a.body)).Decode(&v)
	return v, err
}

// message is the text of an error.
func (a answer) message() string {
	var m struct{ Message string }
	_ = json.Unmarshal(a.body, &m)
	return m.Message
}

// call asks; a body that is JSON is declared so, another is an archive.
func (e *engine) call(method, path string, body []byte, headers ...string) answer {
	e.t.Helper()
	a, err := e.try(method, path, body, headers...)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (e *engine) try(method, path string, body []byte, headers ...string) (answer, error) {
	req, err := http.NewRequest(method, "http://skiff"+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/x-tar")
		if json.Valid(body) {
			req.Header.Set("Content-Type", "application/json")
		}
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rep, err := e.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = rep.Body.Close() }()
	a := answer{code: rep.StatusCode, header: rep.Header}
	if a.code == http.StatusSwitchingProtocols {
		return a, nil // what follows is not HTTP
	}
	a.body, err = io.ReadAll(rep.Body)
	return a, err
}

// must is call for what has to succeed: it returns a field of the answer.
func (e *engine) must(method, path, body, field string) string {
	e.t.Helper()
	a := e.call(method, path, []byte(body))
	if a.code >= 400 {
		e.t.Fatalf("%s %s: %d %s", method, path, a.code, a.body)
	}
	v, _ := a.value()
	return dig(v, field)
}

// dig follows a path of keys and indices, parted by slashes, and writes what is
// there as JSON, a string bare; "-" is nothing.
func dig(v any, path string) string {
	if path == "" {
		return ""
	}
	for key := range strings.SplitSeq(path, "/") {
		key = strings.ReplaceAll(key, "~", "/")
		switch at := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = at[key]; !ok {
				return "-"
			}
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(at) {
				return "-"
			}
			v = at[i]
		default:
			return "-"
		}
	}
	if s, ok := v.(string); ok {
		return s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	return strings.TrimSpace(b.String())
}

// output runs a created container to its end and returns what it printed.
func (e *engine) output(id string) (string, error) {
	if a, err := e.try("POST", "/containers/"+id+"/start", nil); err != nil || a.code >= 400 {
		return "", errors.Join(err, errors.New(a.message()))
	}
	if a, err := e.try("POST", "/containers/"+id+"/wait", nil); err != nil || a.code >= 400 {
		return "", errors.Join(err, errors.New(a.message()))
	}
	a, err := e.try("GET", "/containers/"+id+"/logs?stdout=1&stderr=1", nil)
	if err != nil {
		return "", err
	}
	if strings.Contains(a.header.Get("Content-Type"), "multiplexed") {
		var out bytes.Buffer
		_, err = stdcopy.StdCopy(&out, &out, bytes.NewReader(a.body))
		return out.String(), err
	}
	return string(a.body), nil
}
