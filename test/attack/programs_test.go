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
	case "keyring":
		return keyring()
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
	if exe, err := os.Readlink(proc + "/exe"); err == nil && !strings.HasPrefix(exe, "/bin/") && exe != "/attack" {
		tell("program %s", strings.Fields(exe)[0])
		if fd, err := unix.Open(proc+"/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			for range 1000 { // until it no longer runs
				w, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					continue
				}
				if _, err := unix.Pwrite(w, []byte("evil"), 0); err == nil {
					tell("WROTE to the program %s", exe)
				}
				_ = unix.Close(w)
				break
			}
			_ = unix.Close(fd)
		}
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
