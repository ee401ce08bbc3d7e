// Package nstest is empty without the build tag root.
package nstest
