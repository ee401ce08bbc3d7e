// Package containers runs containers: one file a verb.
package containers
