package remote

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// served starts a registry of one handler and returns a repository on it.
func served(t *testing.T, auth *registry.AuthConfig, h http.HandlerFunc) *Repository {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Options{Pause: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(srv.URL, "http://") + "/app")
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository(named, auth)
}

func blob(n int) ([]byte, ocispec.Descriptor) {
	b := bytes.Repeat([]byte("0123456789abcdef"), n/16)
	return b, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func readBlob(t *testing.T, r *Repository, d ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	rc, err := r.Blob(t.Context(), d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	return io.ReadAll(rc)
}

// reset breaks a connection as a router does.
func reset(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func TestDownloadsAreTakenUpAgain(t *testing.T) {
	body, desc := blob(1 << 20)
	rest := func(w http.ResponseWriter, r *http.Request) []byte {
		from := 0
		if s, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			from, _ = strconv.Atoi(strings.TrimSuffix(s, "-"))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		return body[from:]
	}
	for name, tc := range map[string]struct {
		spoil func(n int, w http.ResponseWriter, r *http.Request) (spoilt bool)
		asks  int // at most; 0: not looked at
		fails string
	}{
		"connections that are reset": {spoil: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 3 {
				return false
			}
			_, _ = w.Write(rest(w, r)[:200_000])
			_ = http.NewResponseController(w).Flush()
			reset(w)
			return true
		}},
		"a connection that ends before the answer": {spoil: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				_, _ = w.Write(rest(w, r)[:200_000])
				_ = http.NewResponseController(w).Flush()
				reset(w)
			}
			if n > 1 && n < 4 {
				panic(http.ErrAbortHandler)
			}
			return n < 4
		}},
		"a reset before the answer": {spoil: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n <= 2 {
				reset(w)
			}
			return n <= 2
		}},
		"a server that is away for a while": {spoil: func(n int, w http.ResponseWriter, r *http.Request) bool {
			switch {
			case n == 1:
				_, _ = w.Write(rest(w, r)[:200_000])
				_ = http.NewResponseController(w).Flush()
				reset(w)
			case n < 5:
				w.WriteHeader(http.StatusBadGateway)
			default:
				return false
			}
			return true
		}},
		"a server that ignores ranges": {spoil: func(n int, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			if n == 1 {
				_, _ = w.Write(rest(w, r)[:200_000])
				_ = http.NewResponseController(w).Flush()
				reset(w)
			}
			return n == 1
		}},
		"a server that is overwhelmed": {spoil: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n < 8 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusTooManyRequests)
			}
			return n < 8
		}},
		"one that never answers well": {spoil: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}, fails: "502", asks: 2 * (maxResumes + 1)},
		"what is not there": {spoil: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}, fails: "/app: unknown blob: ", asks: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			repo := served(t, nil, func(w http.ResponseWriter, r *http.Request) {
				if !tc.spoil(int(n.Add(1)), w, r) {
					_, _ = w.Write(rest(w, r))
				}
			})
			got, err := readBlob(t, repo, desc)
			if err != nil {
				err = repo.Explain(err)
			}
			if tc.asks > 0 && int(n.Load()) > tc.asks {
				t.Errorf("asked %d times", n.Load())
			}
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, " 1 ": time.Second, "-1": 0, "x": 0, "99999999999999": 0,
		"Fri, 02 Jan 2026 03:04:07 GMT": 2 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// manifest answers with a document under the name "latest", and by digest.
func manifest(mediaType string, header digest.Digest, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		if header != "" {
			w.Header().Set("Docker-Content-Digest", header.String())
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(body)
		}
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	doc := []byte(`{"schemaVersion":1}`)
	big := bytes.Repeat([]byte(" "), 5<<20)
	for name, tc := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"other content than its digest": {manifest(ocispec.MediaTypeImageManifest, digest.FromString("x"), doc), "the registry sent other content"},
		"schema 1":                      {manifest(schema1+"prettyjws", digest.FromBytes(doc), doc), "obsolete schema 1"},
		"schema 1 without a digest":     {manifest(schema1+"prettyjws", "", doc), "obsolete schema 1"},
		"too big":                       {manifest(ocispec.MediaTypeImageManifest, digest.FromBytes(big), big), "too big"},
		"too big without a digest":      {manifest(ocispec.MediaTypeImageManifest, "", big), "too big"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := served(t, nil, tc.h).Manifest(t.Context(), "latest")
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A registry that keeps blobs elsewhere sends us there, without our secrets.
func TestARedirectTakesNoCredentialsAlong(t *testing.T) {
	body, desc := blob(1 << 10)
	var leaked atomic.Value
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(r.Header.Get("Authorization"))
		_, _ = w.Write(body)
	}))
	defer elsewhere.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(elsewhere.URL, "http://"))
	for name, auth := range map[string]*registry.AuthConfig{
		"a password": {Username: "me", Password: "pw"}, "a registry token": {RegistryToken: "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			repo := served(t, auth, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				http.Redirect(w, r, "http://localhost:"+port+"/blob", http.StatusTemporaryRedirect)
			})
			got, err := readBlob(t, repo, desc)
			if err != nil || !bytes.Equal(got, body) || leaked.Load() != "" {
				t.Errorf("%d bytes, %v; the other server was told %q", len(got), err, leaked.Load())
			}
		})
	}
}

// What a mirror does not have, or cannot give, comes from the registry.
func TestMirrorsFallThrough(t *testing.T) {
	doc := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	ok := manifest(ocispec.MediaTypeImageIndex, digest.FromBytes(doc), doc)
	upstream := httptest.NewServer(ok)
	defer upstream.Close()
	for name, mirror := range map[string]http.HandlerFunc{
		"has it not":   http.NotFound,
		"is broken":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"is busy":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"lets none in": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"hangs up":     func(w http.ResponseWriter, _ *http.Request) { reset(w) },
	} {
		t.Run(name, func(t *testing.T) {
			m := httptest.NewServer(mirror)
			defer m.Close()
			c, err := New(Options{Settings: Settings{Mirrors: []string{m.URL}}, Pause: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			c.transports[hubHost] = &transport{RoundTripper: &to{upstream.URL}, set: c.set.Load()}
			named, _ := reference.ParseNormalizedNamed("busybox")
			desc, body, err := c.Repository(named, nil).Manifest(t.Context(), "latest")
			if err != nil || !bytes.Equal(body, doc) || desc.Digest != digest.FromBytes(doc) {
				t.Errorf("got %+v, %v", desc, err)
			}
		})
	}
}

// to sends every request to one server.
type to struct{ url string }

func (t *to) RoundTrip(r *http.Request) (*http.Response, error) {
	u, err := url.Parse(t.url)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = u.Scheme, u.Host
	return http.DefaultTransport.RoundTrip(r)
}

// A mount needs a token for both repositories.
func TestScopesOfAMount(t *testing.T) {
	var scopes []string
	var base string
	_, desc := blob(1 << 10)
	repo := served(t, &registry.AuthConfig{Username: "me", Password: "pw"}, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		switch {
		case r.URL.Path == "/token":
			scopes = strings.Fields(strings.Join(r.Form["scope"], " "))
			_, _ = w.Write([]byte(`{"access_token":"` + base64ish(scopes) + `"}`))
		case r.Header.Get("Authorization") == "":
			base = "http://" + r.Host
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+base+`/token",service="reg"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost && r.Form.Get("mount") == desc.Digest.String() && r.Form.Get("from") == "lib/other":
			if !strings.Contains(r.Header.Get("Authorization"), "lib/other") {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.WriteHeader(http.StatusCreated)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	done, err := repo.PushBlob(t.Context(), desc, []string{"lib/other"}, func() (io.ReadCloser, error) {
		t.Error("the blob is uploaded")
		return nil, errTest
	}, nil)
	if err != nil || !strings.HasSuffix(done.MountedFrom, "/lib/other") {
		t.Errorf("%+v, %v", done, err)
	}
	if !slices.Contains(scopes, "repository:lib/other:pull") || !slices.Contains(scopes, "repository:app:pull,push") {
		t.Errorf("scopes %q", scopes)
	}
}

// base64ish makes a token that tells its scopes.
func base64ish(scopes []string) string { return strings.Join(scopes, "|") }

// How often a download is taken up again can be set, also while the client lives.
func TestAttempts(t *testing.T) {
	body := []byte(strings.Repeat("x", 100))
	desc := ocispec.Descriptor{Digest: digest.FromBytes(body), Size: int64(len(body))}
	var n atomic.Int32
	repo := served(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write(body[:10])
	})
	asks := map[int]int32{}
	for _, attempts := range []int{1, 3} {
		apply, err := repo.c.Prepare(Settings{Attempts: attempts})
		if err != nil {
			t.Fatal(err)
		}
		apply()
		n.Store(0)
		if _, err := readBlob(t, repo, desc); err == nil {
			t.Error("a blob that breaks off was read")
		}
		asks[attempts] = n.Load()
	}
	if asks[1] == 0 || asks[3] <= asks[1] {
		t.Errorf("asked %v times", asks)
	}
}
