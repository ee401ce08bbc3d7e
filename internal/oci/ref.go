package oci

import (
	"errors"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// ParseNamed reads a repository name with an optional tag or digest, in the
// short forms that people type; no tag becomes "latest".
func ParseNamed(s string) (reference.Named, error) {
	n, err := reference.ParseNormalizedNamed(s)
	if errors.Is(err, reference.ErrReferenceInvalidFormat) {
		return nil, errs.With(errs.Invalid, reference.ErrReferenceInvalidFormat) // clients compare the whole of it
	}
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "invalid reference format: %s", refReason(s, err))
	}
	return dropTag(reference.TagNameOnly(n)), nil
}

// refReason spares the caller to read the same sentence twice.
func refReason(s string, err error) string {
	if err.Error() == "invalid reference format" {
		return s
	}
	const again = "invalid reference format: "
	if t := err.Error(); len(t) > len(again) && t[:len(again)] == again {
		return t[len(again):]
	}
	return err.Error()
}

// dropTag makes "name:tag@digest" "name@digest": the digest decides.
func dropTag(n reference.Named) reference.Named {
	d, digested := n.(reference.Digested)
	if _, tagged := n.(reference.Tagged); !digested || !tagged {
		return n
	}
	c, err := reference.WithDigest(reference.TrimNamed(n), d.Digest())
	if err != nil {
		return n
	}
	return c
}

// ParseTagged reads a reference that is to be given to an image: a digest
// cannot be given.
func ParseTagged(s string) (reference.NamedTagged, error) {
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, errs.Newf(errs.Invalid, "invalid reference format: %s", refReason(s, err))
	}
	if _, ok := n.(reference.Digested); ok {
		return nil, errs.New(errs.Invalid, "refusing to create a tag with a digest reference")
	}
	if n.String() == "docker.io/library/sha256" || reference.FamiliarName(n) == "sha256" {
		return nil, errs.New(errs.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	t, ok := reference.TagNameOnly(n).(reference.NamedTagged)
	if !ok {
		return nil, errs.Newf(errs.Invalid, "invalid reference format: %s", s)
	}
	return t, nil
}

// Object is a reference's tag or digest.
func Object(n reference.Named) string {
	switch r := n.(type) {
	case reference.Digested:
		return r.Digest().String()
	case reference.Tagged:
		return r.Tag()
	}
	return "latest"
}

// IsDigest reports whether s is a whole digest.
func IsDigest(s string) (digest.Digest, bool) {
	d, err := digest.Parse(s)
	return d, err == nil
}
