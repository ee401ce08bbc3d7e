//go:build root

package attack

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The test's own program is also what attacks from inside a container, where
// busybox is too slow or lacks the system call.

const programEnv = "SKIFF_ATTACK"

// program gives the arguments of docker run that put the program into a
// container, to be executed as /attack.
func program(t testing.TB, name string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if dynamic(t, exe) {
		t.Fatal("the test's program does not run in a container: build it with CGO_ENABLED=0")
	}
	return []string{"-v", exe + ":/attack:ro", "-e", programEnv + "=" + name, "-e", "GOMAXPROCS=1"}
}

func runProgram(name string, args []string) int {
	goruntime.LockOSThread()
	switch name {
	case "swap":
		return swap(args[0], args[1])
	case "spy":
		return spy()
	case "reads":
		return reads(args[0])
	case "reaper":
		return reaper()
	case "keyring":
		return keyring()
	case "syscalls":
		return syscalls()
	case "cgroups":
		return cgroups()
	case "cgroups-inside":
		return cgroupMounts("in a user namespace: ")
	}
	fmt.Println("no such program:", name)
	return 2
}

// swap exchanges two names for as long as it lives.
func swap(a, b string) int {
	fmt.Println("swapping")
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
			fmt.Println(err)
			return 1
		}
	}
}

// spy looks, for as long as it lives, at every process that enters its
// container: it tries to open the program, the working directory and the
// descriptors of what is not from here, to write to them, and to trace it. It
// prints what it could do, each thing once.
func spy() int {
	told := map[string]bool{}
	tell := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !told[s] {
			told[s] = true
			fmt.Println(s)
		}
	}
	tell("spying")
	self := os.Getpid()
	for {
		ents, _ := os.ReadDir("/proc")
		for _, e := range ents {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == self || pid == 1 {
				continue
			}
			spyOn("/proc/"+e.Name(), pid, tell)
		}
	}
}

func spyOn(proc string, pid int, tell func(string, ...any)) {
	comm, err := os.ReadFile(proc + "/comm")
	if err != nil {
		return
	}
	tell("met %s", strings.TrimSpace(string(comm)))
	if exe, err := os.Readlink(proc + "/exe"); err == nil && foreign(exe) {
		tell("program %s", strings.Fields(exe)[0])
		overwrite(proc+"/exe", tell)
	}
	if cwd, err := os.Readlink(proc + "/cwd"); err == nil && cwd != "/" {
		tell("cwd %s", cwd)
	}
	for _, link := range []string{"/root", "/cwd"} {
		if _, err := os.Stat(proc + link + "/" + hostMark); err == nil {
			tell("SAW the host by %s", link)
		}
	}
	fds, _ := os.ReadDir(proc + "/fd")
	for _, f := range fds {
		at := filepath.Join(proc, "fd", f.Name())
		if st, err := os.Stat(at); err == nil && (st.IsDir() || st.Mode().IsRegular()) {
			to, _ := os.Readlink(at)
			tell("descriptor %s", to)
		}
		if _, err := os.Stat(at + "/" + hostMark); err == nil {
			tell("SAW the host by a descriptor")
		}
	}
	if exe, err := os.Readlink(proc + "/exe"); err == nil && !strings.HasPrefix(exe, "/") {
		if err := unix.PtraceAttach(pid); err == nil {
			tell("TRACED a launcher")
			_ = unix.PtraceDetach(pid)
		}
	}
}

// overwrite opens a program, tells how it is sealed, and writes to it as soon as
// it no longer runs.
func overwrite(path string, tell func(string, ...any)) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || !foreign(name) { // it has executed the container's command meanwhile
		return
	}
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		have = 0
	}
	sealed := have&allSeals == allSeals
	tell("OPENED %s, sealed %v", name, sealed)
	tries := 1000
	if sealed {
		tries = 1 // it would be of no use
	}
	for range tries {
		w, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if _, err := unix.Pwrite(w, []byte("evil"), 0); err == nil {
			tell("WROTE to the program %s", name)
		}
		_ = unix.Close(w)
		break
	}
}

// foreign tells programs that are not the container's.
func foreign(exe string) bool { return !strings.HasPrefix(exe, "/bin/") && exe != "/attack" }

const allSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// reads prints the group that it runs as, and what is in a file.
func reads(path string) int {
	body, err := os.ReadFile(path)
	if err != nil {
		body = []byte(err.Error())
	}
	fmt.Printf("%d: %s\n", os.Getegid(), body)
	return 0
}

// reaper is the attack on process 1 of the container, which is the engine's.
func reaper() int {
	exe, err := os.Readlink("/proc/1/exe")
	fmt.Println("process 1 is", exe, err)
	overwrite("/proc/1/exe", func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	return 0
}

// syscalls makes each call that opens the kernel further than a container needs,
// and prints those that are not forbidden.
func syscalls() int {
	for name, call := range map[string][4]uintptr{
		"unshare user":    {unix.SYS_UNSHARE, unix.CLONE_NEWUSER},
		"unshare mount":   {unix.SYS_UNSHARE, unix.CLONE_NEWNS},
		"setns":           {unix.SYS_SETNS, ^uintptr(0), 0},
		"mount":           {unix.SYS_MOUNT, 0, 0, 0},
		"umount2":         {unix.SYS_UMOUNT2, 0, 0},
		"fsopen":          {unix.SYS_FSOPEN, 0, 0},
		"open_tree clone": {unix.SYS_OPEN_TREE, ^uintptr(99), 0, unix.OPEN_TREE_CLONE},
		"move_mount":      {unix.SYS_MOVE_MOUNT, ^uintptr(0), 0, ^uintptr(0)},
		"mount_setattr":   {unix.SYS_MOUNT_SETATTR, ^uintptr(0), 0, 0},
		"pivot_root":      {unix.SYS_PIVOT_ROOT, 0, 0},
		"keyctl":          {unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, uintptr(0xfffffffd), 0},
		"add_key":         {unix.SYS_ADD_KEY, 0, 0, 0},
		"request_key":     {unix.SYS_REQUEST_KEY, 0, 0, 0},
		"bpf":             {unix.SYS_BPF, 0, 0, 0},
		"userfaultfd":     {unix.SYS_USERFAULTFD, 0},
		"io_uring_setup":  {unix.SYS_IO_URING_SETUP, 1, 0},
		"perf_event_open": {unix.SYS_PERF_EVENT_OPEN, 0, 0, 0},
		"kexec_load":      {unix.SYS_KEXEC_LOAD, 0, 0, 0},
		"init_module":     {unix.SYS_INIT_MODULE, 0, 0, 0},
		"finit_module":    {unix.SYS_FINIT_MODULE, ^uintptr(0), 0, 0},
		"open_by_handle":  {unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0), 0, 0},
		"AF_ALG":          {unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
		"AF_VSOCK":        {unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	} {
		_, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3])
		if errno != unix.EPERM && errno != unix.ENOSYS && errno != unix.EACCES {
			fmt.Printf("%s: %d %v\n", name, errno, errno)
		}
	}
	return 0
}

// hostMark is a file in the host's root that containers do not have.
const hostMark = "var/lib/dpkg/status"

// keyring prints the session keyring's number and whether a key of another
// session is to be found in it.
func keyring() int {
	id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		fmt.Println("no session keyring:", err)
		return 1
	}
	about, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, id)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	_, err = unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "skiff-attack", 0)
	fmt.Println(id, about[strings.LastIndex(about, ";")+1:], err == nil)
	if _, err := unix.AddKey("user", "skiff-attack", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
