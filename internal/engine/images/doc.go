// Package images keeps images: pull, push, tag, save, load.
package images
