package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

const (
	// clientID is what token servers know docker by. A refresh token is its
	// client's: the same one must ask for it and use it.
	clientID = "docker"
	// tokenUser stands for the name where the secret is an identity token.
	tokenUser = "<token>"
)

// secretOf is what to answer a challenge with; without a user the secret is an
// identity token.
func secretOf(a *registry.AuthConfig) (user, secret string) {
	switch {
	case a.IdentityToken != "":
		return "", a.IdentityToken
	case a.Username == tokenUser:
		return "", a.Password
	}
	return a.Username, a.Password
}

// Login checks credentials with the registry they name (docker.io if none). A
// registry with a token server may give an identity token for them, to be kept
// in place of the password.
func (c *Client) Login(ctx context.Context, a *registry.AuthConfig) (registry.AuthResponse, error) {
	host := loginHost(a.ServerAddress)
	h, err := c.host("https", host, a)
	if err != nil {
		return registry.AuthResponse{}, err
	}
	identity, err := login(ctx, h, a)
	if err == nil {
		return registry.AuthResponse{Status: "Login Succeeded", IdentityToken: identity}, nil
	}
	named, perr := reference.WithName(host + "/x")
	if perr == nil {
		if nerr := explainNetwork(named, err); nerr != nil {
			return registry.AuthResponse{}, nerr
		}
	}
	s := registrySaid(err)
	if s.status != 0 && s.status != http.StatusUnauthorized && s.status != http.StatusForbidden {
		return registry.AuthResponse{}, errs.Newf(errs.Unavailable, "login attempt to https://%s/v2/ failed with status: %d %s", host, s.status, http.StatusText(s.status))
	}
	return registry.AuthResponse{}, errs.Newf(errs.Unauthorized, "Get %q: unauthorized: %s", "https://"+host+"/v2/", orText(s.message, "incorrect username or password"))
}

func loginHost(address string) string {
	if address == "" || address == hubAuth {
		return hubHost
	}
	if _, after, ok := strings.Cut(address, "://"); ok {
		address = after
	}
	host, _, _ := strings.Cut(address, "/")
	if host == hub || host == "index.docker.io" {
		return hubHost
	}
	return host
}

// login asks for the registry's root, and once more with an answer to its
// challenge. A registry without a challenge takes anybody.
func login(ctx context.Context, h docker.RegistryHost, a *registry.AuthConfig) (identity string, err error) {
	challenged, err := ping(ctx, h, "")
	if challenged == nil || err == nil || a.RegistryToken != "" {
		return a.IdentityToken, err
	}
	user, secret := secretOf(a)
	for _, ch := range auth.ParseAuthHeader(challenged) {
		switch ch.Scheme {
		case auth.BearerAuth:
			token, identity, err := loginToken(ctx, h, ch, user, secret)
			if err != nil {
				return "", err
			}
			_, err = ping(ctx, h, "Bearer "+token)
			return orText(identity, a.IdentityToken), err
		case auth.BasicAuth:
			if user == "" || secret == "" {
				continue
			}
			r := http.Request{Header: http.Header{}}
			r.SetBasicAuth(user, secret)
			_, err := ping(ctx, h, r.Header.Get("Authorization"))
			return "", err
		}
	}
	return "", err
}

// ping asks for the root of the registry's API; headers are those of an answer
// of status 401.
func ping(ctx context.Context, h docker.RegistryHost, authorization string) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.Scheme+"://"+h.Host+"/v2/", nil)
	if err != nil {
		return nil, err
	}
	for k, v := range h.Header {
		req.Header[k] = v
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := h.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusOK:
		return nil, nil
	case resp.StatusCode == http.StatusUnauthorized:
		return resp.Header, unexpected(resp)
	}
	return nil, unexpected(resp)
}

// loginToken asks the token server for access, and for an identity token that
// outlasts it. As docker, it sends passwords by GET and identity tokens by
// POST; a server that does not know the one is asked by the other.
func loginToken(ctx context.Context, h docker.RegistryHost, ch auth.Challenge, user, secret string) (token, identity string, err error) {
	o, err := auth.GenerateTokenOptions(ctx, h.Host, user, secret, ch)
	if err != nil {
		return "", "", err
	}
	o.FetchRefreshToken = true
	client := &http.Client{Transport: &asDocker{h.Client.Transport}}
	if user == "" && secret != "" {
		return loginByPost(ctx, client, o)
	}
	byGet := o
	if byGet.Realm, err = withQuery(o.Realm, "client_id", clientID, "account", user); err != nil {
		return "", "", err
	}
	r, err := auth.FetchToken(ctx, client, nil, byGet)
	if s := registrySaid(err).status; (s == http.StatusNotFound || s == http.StatusMethodNotAllowed) && secret != "" {
		return loginByPost(ctx, client, o)
	}
	if err != nil {
		return "", "", err
	}
	return r.Token, r.RefreshToken, nil
}

func loginByPost(ctx context.Context, client *http.Client, o auth.TokenOptions) (token, identity string, err error) {
	r, err := auth.FetchTokenWithOAuth(ctx, client, nil, clientID, o)
	if err != nil {
		return "", "", err
	}
	return r.AccessToken, r.RefreshToken, nil
}

// withQuery adds pairs of names and values to a URL's query, but for empty ones.
func withQuery(address string, pairs ...string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// asDocker gives docker's client id in requests for tokens, where the library's
// own is fixed.
type asDocker struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t *asDocker) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost || r.Body == nil || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return t.RoundTripper.RoundTrip(r)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxManifest))
	if err = errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, err
	}
	form.Set("client_id", clientID)
	b = []byte(form.Encode())
	r = r.Clone(r.Context())
	r.ContentLength = int64(len(b))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	r.Body, _ = r.GetBody()
	return t.RoundTripper.RoundTrip(r)
}
