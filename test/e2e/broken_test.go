//go:build root

package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/skiff-containers/skiff/internal/meta"
)

// TestBrokenRecord: a record that cannot be read costs its container nothing. It
// runs on, with its network and its volume, until somebody repairs the record.
func TestBrokenRecord(t *testing.T) {
	d := daemon(t)
	id := d.Run("docker", "run", "-d", "--name", "hurt", "-v", "/kept", "-h", "hurt", "-p", "127.0.0.1:18091:80", "busybox", "sh", "-c", "echo kept > /kept/file; "+httpd)
	fetch(t, "http://127.0.0.1:18091/")
	pid := d.Run("docker", "inspect", "-f", "{{.State.Pid}}", id)
	d.Run("docker", "run", "-d", "--name", "other", "busybox", "sleep", "1000")
	d.Run("docker", "run", "-d", "--rm", "--name", "brief", "busybox", "sleep", "1000")
	d.Terminate()
	whole := putRow(t, filepath.Join(d.DataRoot, "meta.db"), id, json.RawMessage(`{"id":5}`))

	d.Launch()
	if r := d.Try("", "docker", "inspect", "hurt"); r.Code == 0 {
		t.Error("the record can be read")
	}
	want(t, "the others run", d.Run("docker", "inspect", "-f", "{{.State.Running}}", "other", "brief"), "true\ntrue")
	d.Run("kill", "-0", pid)
	want(t, "its page", fetch(t, "http://127.0.0.1:18091/"), "hurt\n")
	d.Terminate()

	putRow(t, filepath.Join(d.DataRoot, "meta.db"), id, whole)
	d.Launch()
	want(t, "it runs", d.Run("docker", "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "hurt"), "true "+pid)
	want(t, "its volume", d.Run("docker", "exec", "hurt", "cat", "/kept/file"), "kept")
	want(t, "its page again", fetch(t, "http://127.0.0.1:18091/"), "hurt\n")
	d.Run("docker", "rm", "-fv", "hurt", "other", "brief")
}

// putRow replaces a container's row and returns what it was.
func putRow(t *testing.T, path, id string, row json.RawMessage) json.RawMessage {
	t.Helper()
	db, err := meta.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tab, err := meta.NewTable[json.RawMessage](db, "containers")
	if err != nil {
		t.Fatal(err)
	}
	old, err := tab.Get(id)
	if err == nil {
		err = tab.Put(id, row)
	}
	if err != nil {
		t.Fatal(err)
	}
	return old
}
