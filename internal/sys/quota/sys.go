package quota

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of linux/dqblk_xfs.h: the kernel answers them for ext4 as well, and
// only they tell counted quotas from enforced ones.
const (
	projectQuota = 2 // PRJQUOTA

	xGetQuota = 'X'<<8 + 3
	xSetLimit = 'X'<<8 + 4
	xGetState = 'X'<<8 + 5

	accounted = 1 << 4 // FS_QUOTA_PDQ_ACCT
	enforced  = 1 << 5 // FS_QUOTA_PDQ_ENFD

	quotaVersion = 1      // FS_DQUOT_VERSION
	projectFlag  = 2      // FS_PROJ_QUOTA
	fieldSoft    = 1 << 2 // FS_DQ_BSOFT
	fieldHard    = 1 << 3 // FS_DQ_BHARD

	blockSize = 512

	// From linux/fs.h, for processors that number ioctls as most do.
	getAttr        = 0x801c581f // FS_IOC_FSGETXATTR
	setAttr        = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherit = 0x200      // FS_XFLAG_PROJINHERIT
)

// diskQuota is struct fs_disk_quota.
type diskQuota struct {
	Version, Flags       int8
	Fields               uint16
	ID                   uint32
	BlockHard, BlockSoft uint64 // blocks of 512 bytes
	InodeHard, InodeSoft uint64
	Blocks, Inodes       uint64 // in use
	_                    [56]byte
}

// free reports whether the file system has nothing to remember of a project.
func (q *diskQuota) free() bool {
	return q.Blocks|q.Inodes|q.BlockHard|q.BlockSoft|q.InodeHard|q.InodeSoft == 0
}

// fsxattr is struct fsxattr.
type fsxattr struct {
	Flags, ExtentSize, Extents, Project, CowExtentSize uint32
	_                                                  [8]byte
}

// quotaState is struct fs_quota_stat.
type quotaState struct {
	Version int8
	Flags   uint16
	_       [76]byte
}

func quotactl(f *os.File, command uint32, id uint32, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|projectQuota), uintptr(id), uintptr(arg), 0, 0)
	runtime.KeepAlive(f)
	if e != 0 {
		return os.NewSyscallError("quotactl_fd", e)
	}
	return nil
}

// haveSyscall tells a kernel without quotactl_fd from a file system without
// quotas, which fail alike.
func haveSyscall() bool {
	_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, ^uintptr(0), uintptr(xGetState<<8|projectQuota), 0, 0, 0, 0)
	return e != unix.ENOSYS
}

// state returns which quotas are counted and enforced.
func state(f *os.File) (uint16, error) {
	var s quotaState
	err := quotactl(f, xGetState, 0, unsafe.Pointer(&s)) //nolint:gosec // a call package unix does not have
	return s.Flags, err
}

func get(f *os.File, id uint32) (diskQuota, error) {
	var q diskQuota
	err := quotactl(f, xGetQuota, id, unsafe.Pointer(&q)) //nolint:gosec // see state
	return q, err
}

// setLimit limits what a project holds; 0 is no limit.
func setLimit(f *os.File, id uint32, size uint64) error {
	q := diskQuota{
		Version: quotaVersion, Flags: projectFlag, Fields: fieldSoft | fieldHard, ID: id,
		BlockHard: blocks(size), BlockSoft: blocks(size),
	}
	return quotactl(f, xSetLimit, id, unsafe.Pointer(&q)) //nolint:gosec // see state
}

func ioctl(f *os.File, request uintptr, x *fsxattr) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(x))) //nolint:gosec // see state
	runtime.KeepAlive(f)
	if e != 0 {
		return os.NewSyscallError("ioctl", e)
	}
	return nil
}

func project(f *os.File) (uint32, error) {
	var x fsxattr
	err := ioctl(f, getAttr, &x)
	return x.Project, err
}

// setProject sets a directory's project, for all that will be made in it.
func setProject(f *os.File, id uint32) error {
	var x fsxattr
	if err := ioctl(f, getAttr, &x); err != nil {
		return err
	}
	if x.Project >= firstID {
		return errors.New("it has one already")
	}
	x.Flags |= projectInherit
	x.Project = id
	return ioctl(f, setAttr, &x)
}
