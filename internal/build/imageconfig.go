package build

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/skiff-containers/skiff/internal/kit/errs"
)

// imageConfig completes the configuration that a frontend returned: its layers,
// a history entry for each of them, and times. Members unknown to us are kept.
func imageConfig(base []byte, layers []builtLayer, now time.Time) ([]byte, error) {
	if len(base) == 0 {
		var err error
		if base, err = emptyConfig(); err != nil {
			return nil, err
		}
	}
	var img ocispec.Image
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(base, &img); err != nil {
		return nil, errs.Newf(errs.Invalid, "the frontend returned an invalid image configuration: %w", err)
	}
	if err := json.Unmarshal(base, &members); err != nil || members == nil {
		return nil, errs.New(errs.Invalid, "the frontend returned an invalid image configuration")
	}
	if img.OS == "" || img.Architecture == "" {
		return nil, errs.New(errs.Invalid, "the frontend returned an image configuration without os or architecture")
	}
	root := ocispec.RootFS{Type: "layers"}
	for _, l := range layers {
		root.DiffIDs = append(root.DiffIDs, l.DiffID)
	}
	history := completeHistory(img.History, layers)
	created := img.Created
	if created == nil {
		created = &now
		if n := len(history); n > 0 && history[n-1].Created != nil {
			created = history[n-1].Created
		}
	}
	for k, v := range map[string]any{"rootfs": root, "history": history, "created": created} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("image configuration: %w", err)
		}
		members[k] = b
	}
	return json.Marshal(members)
}

// completeHistory gives every layer one entry that is not empty, and every
// entry a time: what a Dockerfile's metadata instructions lack is taken from
// the next layer, else from the one before.
func completeHistory(in []ocispec.History, layers []builtLayer) []ocispec.History {
	history := slices.Clone(in)
	at := func(n int) *time.Time {
		t := time.Unix(0, layers[n].Created).UTC()
		return &t
	}
	n := 0
	for i := range history {
		h := &history[i]
		if h.EmptyLayer {
			continue
		}
		if n == len(layers) { // more entries than layers: it made none
			h.EmptyLayer = true
			continue
		}
		if h.Created == nil {
			h.Created = at(n)
		}
		n++
	}
	for ; n < len(layers); n++ {
		by := layers[n].Description
		if by == "" {
			by = "created by buildkit"
		}
		history = append(history, ocispec.History{Created: at(n), CreatedBy: by, Comment: "buildkit.exporter.image.v0"})
	}
	var next *time.Time
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].Created == nil {
			history[i].Created = next
		}
		next = history[i].Created
	}
	var last *time.Time
	for i := range history {
		if history[i].Created == nil {
			history[i].Created = last
		}
		last = history[i].Created
	}
	return history
}

func emptyConfig() ([]byte, error) {
	p := platforms.Normalize(platforms.DefaultSpec())
	img := ocispec.Image{Platform: p}
	img.Config.WorkingDir = "/"
	img.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return json.Marshal(img)
}
