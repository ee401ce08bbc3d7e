package apiserver

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// maxJSON bounds what a request body may hold where it is decoded into memory.
const maxJSON = 8 << 20

// jsonPatience is how long a client may take to send it.
const jsonPatience = time.Minute

// decode reads the JSON body into v. An empty body leaves v alone.
func (r *request) decode(v any) error {
	if r.ContentLength == 0 && r.Header.Get("Content-Type") == "" {
		return nil
	}
	if err := r.checkJSON(); err != nil {
		return err
	}
	if r.ContentLength == 0 {
		return nil
	}
	return r.decodeBody(v)
}

// decodeWhole is decode, where a body must be there.
func (r *request) decodeWhole(v any) error {
	if err := r.checkJSON(); err != nil {
		return err
	}
	return r.decodeBody(v)
}

// decodeBody is decodeJSON of the body, for clients that do not dawdle.
func (r *request) decodeBody(v any) error {
	_ = r.rc.SetReadDeadline(time.Now().Add(jsonPatience)) // HTTP/2 and tests have none
	defer func() { _ = r.rc.SetReadDeadline(time.Time{}) }()
	return decodeJSON(r.Body, v)
}

func (r *request) checkJSON() error {
	ct := r.Header.Get("Content-Type")
	t, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return errs.Newf(errs.Invalid, "malformed Content-Type header (%s): %w", ct, err)
	}
	if t != "application/json" {
		return errs.Newf(errs.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", ct)
	}
	return nil
}

var errNoBody = errs.New(errs.Invalid, "invalid JSON: got EOF while reading request body")

func decodeJSON(body io.Reader, v any) error {
	in := &io.LimitedReader{R: body, N: maxJSON + 1}
	dec := json.NewDecoder(in)
	err := dec.Decode(v)
	switch {
	case in.N <= 0:
		return errs.Newf(errs.Invalid, "request body is larger than %d bytes", maxJSON)
	case errors.Is(err, io.EOF):
		return errNoBody
	case err != nil:
		return errs.Newf(errs.Invalid, "invalid JSON: %w", err)
	}
	_, err = dec.Token()
	switch {
	case !errors.Is(err, io.EOF):
		return errs.New(errs.Invalid, "unexpected content after JSON")
	case in.N <= 0: // what follows the limit was not looked at
		return errs.Newf(errs.Invalid, "request body is larger than %d bytes", maxJSON)
	}
	return nil
}

// auth returns the credentials of the X-Registry-Auth header; nil without. As
// docker does, credentials that cannot be read count as none where anonymous
// calls are allowed.
func (r *request) auth() *registry.AuthConfig {
	a, err := parseAuth(r.Header.Get(registry.AuthHeader))
	if err != nil {
		r.log.DebugContext(r.Context(), "ignoring credentials", "err", err)
		return nil
	}
	return a
}

func parseAuth(h string) (*registry.AuthConfig, error) {
	if h == "" {
		return nil, nil //nolint:nilnil // no credentials
	}
	var a registry.AuthConfig
	if err := decodeBase64JSON(h, &a); err != nil {
		return nil, errs.Newf(errs.Invalid, "invalid X-Registry-Auth header: %w", err)
	}
	if a == (registry.AuthConfig{}) {
		return nil, nil //nolint:nilnil // no credentials
	}
	return &a, nil
}

// parseAuths reads the X-Registry-Config header: credentials by registry.
func parseAuths(h string) (map[string]registry.AuthConfig, error) {
	as := map[string]registry.AuthConfig{}
	if h == "" {
		return as, nil
	}
	if err := decodeBase64JSON(h, &as); err != nil {
		return map[string]registry.AuthConfig{}, errs.Newf(errs.Invalid, "invalid X-Registry-Config header: %w", err)
	}
	return as, nil
}

// decodeBase64JSON takes both alphabets, padded or not: clients differ.
func decodeBase64JSON(s string, v any) error {
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(s, "="))
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return errors.New("must be a valid base64url-encoded string")
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errors.New("must be base64url-encoded JSON") // what it holds is secret
	}
	return nil
}

// repoTag joins the parameters repo and tag to a reference with a tag, "latest"
// if none is given; "" without a repo.
func repoTag(repo, tag string) (string, error) {
	if repo == "" {
		return "", nil
	}
	ref, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return "", errs.With(errs.Invalid, err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return "", errs.New(errs.Invalid, "cannot import digest reference")
	}
	if tag != "" {
		if ref, err = reference.WithTag(reference.TrimNamed(ref), tag); err != nil {
			return "", errs.With(errs.Invalid, err)
		}
	}
	return reference.FamiliarString(reference.TagNameOnly(ref)), nil
}
