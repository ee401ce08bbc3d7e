// Package snapshot keeps layers as directories, once each, for everybody: the
// image verbs, the builder, and the containers that mount them.
//
//	st, err := snapshot.Open(ctx, snapshot.Options{Root: dir, Log: log})
//	ctx = st.Context(ctx)
//	dirs, err := st.LayerDirs(ctx, chainID) // an overlay's lowerdirs
//
// Records and references are containerd's metadata.DB; the snapshotter under
// it is our own overlay one, in which several snapshots may share a directory:
// so a layer that was just built is the image's layer under its chainID without
// being copied. A snapshot named by a chainID is a promise about its bytes: only
// writers that checked the layer's diffID may commit one.
package snapshot
