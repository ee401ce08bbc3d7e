//go:build linux

package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/runtime"
)

// TestUserFilesAreOpenedIfTheyAreFiles has a pipe where users are told of: it
// stands for a device of the host's, which acts when it is opened.
func TestUserFilesAreOpenedIfTheyAreFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(root) }()
	passwd := filepath.Join(dir, "etc/passwd")
	if err := os.WriteFile(passwd, []byte("me:x:7:8::/here:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var p specs.Process
	if err := Identify(root, &runtime.User{Spec: "me"}, &p); err != nil || p.User.UID != 7 || p.User.GID != 8 {
		t.Fatalf("%+v, %v", p.User, err)
	}
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(passwd, 0o600); err != nil {
		t.Fatal(err)
	}
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(watch) }()
	if _, err := unix.InotifyAddWatch(watch, passwd, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	if err := Identify(root, &runtime.User{Spec: "me"}, &p); err == nil || !strings.Contains(err.Error(), "/etc/passwd is not a regular file") {
		t.Error(err)
	}
	if n, _ := unix.Read(watch, make([]byte, 4096)); n > 0 {
		t.Error("it was opened")
	}
}
