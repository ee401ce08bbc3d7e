// Package system tells of the engine itself: info, version, disk usage, and the
// event stream's read side.
package system

// DiskUsageOptions says which objects GET /system/df counts; none set is all.
type DiskUsageOptions struct {
	Containers, Images, Volumes, BuildCache, Verbose bool
}
