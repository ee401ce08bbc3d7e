package journald

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-containers/skiff/internal/logs"
	"github.com/skiff-containers/skiff/internal/logs/remote"
)

func TestFieldName(t *testing.T) {
	for in, want := range map[string]string{"abc": "ABC", "com.example-x": "COM_EXAMPLE_X", "_hidden": "HIDDEN", "1é": "1_", "__": ""} {
		if got := fieldName(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

// TestEntries sends to a socket as the journal has it: an entry a datagram, a
// large one as a sealed file.
func TestEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	huge := strings.Repeat("v", 1<<20)
	info := &remote.Info{
		ContainerID: strings.Repeat("c", 64), ContainerName: "/n", ContainerImageName: "img", ContainerEnv: []string{"HUGE=" + huge},
		Config: map[string]string{"tag": "t"},
	}
	send := func(m remote.Message) {
		t.Helper()
		d, err := New(info, path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := d.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if err := s.Send(t.Context(), []remote.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	send(remote.Message{Stream: logs.Stderr, At: time.Unix(1, 5).UTC(), Line: []byte("a=b"), Partial: &remote.Partial{ID: "p", Ordinal: 2}})
	b := make([]byte, 1<<16)
	n, err := l.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	got, epoch, _ := strings.Cut(string(b[:n]), "CONTAINER_LOG_EPOCH=")
	want := "PRIORITY=3\nMESSAGE=a=b\nCONTAINER_ID=cccccccccccc\nCONTAINER_ID_FULL=" + strings.Repeat("c", 64) +
		"\nCONTAINER_NAME=n\nCONTAINER_TAG=t\nIMAGE_NAME=img\nSYSLOG_IDENTIFIER=t\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, rest, _ := strings.Cut(epoch, "\n"); rest != "SYSLOG_TIMESTAMP=1970-01-01T00:00:01.000000005Z\nCONTAINER_PARTIAL_ID=p\nCONTAINER_PARTIAL_ORDINAL=2\n"+
		"CONTAINER_PARTIAL_LAST=false\nCONTAINER_PARTIAL_MESSAGE=true\nCONTAINER_LOG_ORDINAL=1\n" {
		t.Errorf("got %q", rest)
	}

	info.Config["env"] = "HUGE"
	send(remote.Message{Stream: logs.Stdout, At: time.Unix(1, 0), Line: []byte("big")})
	oob := make([]byte, 64)
	n, on, _, _, err := l.ReadMsgUnix(b, oob)
	if err != nil || n != 0 {
		t.Fatal(n, err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil || len(msgs) != 1 {
		t.Fatal(msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer func() { _ = f.Close() }()
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("seals %x %v", seals, err)
	}
	all, err := io.ReadAll(io.NewSectionReader(f, 0, 4<<20))
	if err != nil || !bytes.Contains(all, []byte("\nHUGE="+huge+"\n")) || !bytes.HasPrefix(all, []byte("PRIORITY=6\nMESSAGE=big\n")) {
		t.Errorf("%d bytes, %v", len(all), err)
	}
}

func TestOptions(t *testing.T) {
	if err := Validate(map[string]string{"tag": "", "labels": "", "labels-regex": "", "env": "", "env-regex": ""}); err != nil {
		t.Error(err)
	}
	if err := Validate(map[string]string{"x": ""}); err == nil || err.Error() != "unknown log opt 'x' for journald log driver" {
		t.Error(err)
	}
}
