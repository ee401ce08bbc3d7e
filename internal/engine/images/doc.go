// Package images keeps images: pull, push, tag, save, load.
//
// An image is its configuration: the configuration's digest is the image's id.
// What is recorded (in containerd's image store) are names, each leading to a
// manifest or to the index it came from:
//
//	docker.io/library/busybox:latest          a tag
//	docker.io/library/busybox@sha256:…        what a registry called it
//	dangling@sha256:…                         the id of an image with no other name
//
// Layers are kept as directories by internal/snapshot. Those that were made
// here appear in manifests as uncompressed archives that are not kept, but
// produced from the directory when somebody reads them; push compresses them.
package images
