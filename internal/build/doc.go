// Package build makes images from Dockerfiles: BuildKit's solver, Dockerfile
// frontend and API, embedded, on the engine's own layer store and launcher.
//
//	b := build.New(build.Options{Root: dir, Store: …, Launcher: …, Networks: …})
//	res, err := b.Solve(ctx, build.Request{…}, status)  // POST /build
//	err = b.ServeConn(ctx, conn)                        // POST /grpc
//
// BuildKit is started by the first request, not by New. What differs from a
// stock BuildKit:
//
//   - executor.go runs steps with the engine's launcher; a step's root is
//     mounted by the launcher, never in the host's mount table;
//   - exporter.go ("moby") hands a build's layers to the engine as they are:
//     not compressed, not unpacked again, not copied;
//   - content.go lets images be used as a base or exported although the archives
//     of their layers are not kept: they are made when somebody reads them;
//   - source.go looks for a base image in the local store first.
package build
