//go:build root

package launch

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A namespace that is listed with a path may be the host's: nothing of it is
// the container's to change.
func TestHostsNamespaces(t *testing.T) {
	join := func(b *box, kind specs.LinuxNamespaceType, path string) {
		for i, n := range b.l.Spec.Linux.Namespaces {
			if n.Type == kind {
				b.l.Spec.Linux.Namespaces[i].Path = path
			}
		}
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Sethostname([]byte(name)) }) // should it fail
	for _, tc := range []struct {
		kind       specs.LinuxNamespaceType
		file, key  string
		host, text string
	}{
		{specs.NetworkNamespace, "net", "net.ipv4.ip_default_ttl", "", `sysctl "net.ipv4.ip_default_ttl" is not in a namespace of the container's own`},
		{specs.IPCNamespace, "ipc", "kernel.msgmni", "", `sysctl "kernel.msgmni" is not`},
		{specs.UTSNamespace, "uts", "kernel.domainname", name, `sysctl "kernel.domainname" is not`},
		{specs.UTSNamespace, "uts", "", "another", "a host name needs a UTS namespace"},
	} {
		t.Run(tc.file+tc.host, func(t *testing.T) {
			b := newBox(t, "true")
			join(b, tc.kind, "/proc/self/ns/"+tc.file)
			if tc.kind == specs.UTSNamespace {
				b.l.Spec.Hostname = tc.host
			}
			if tc.key != "" {
				now, err := os.ReadFile("/proc/sys/" + sysctlFile(tc.key))
				if err != nil {
					t.Fatal(err)
				}
				b.l.Spec.Linux.Sysctl = map[string]string{tc.key: string(now)} // whatever becomes of it
			}
			b.fails(tc.text)
		})
	}
	t.Run("passed", func(t *testing.T) {
		ns, err := os.Open("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ns.Close() }()
		b := newBox(t, "true")
		b.l.NetNS = ns
		b.l.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "64"}
		b.fails(`sysctl "net.ipv4.ip_default_ttl" is not`)
	})
	t.Run("the host's name", func(t *testing.T) {
		b := newBox(t, "hostname")
		join(b, specs.UTSNamespace, "/proc/self/ns/uts")
		b.l.Spec.Hostname = name
		b.prints(name + "\n")
	})
}
