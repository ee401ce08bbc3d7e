//go:build root

package launch

import (
	"encoding/binary"
	"net"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// dummy makes a device in the test's network namespace, with an address.
func dummy(t *testing.T, name string, addr *net.IPNet) {
	t.Helper()
	r, err := openRoute()
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	// A pair of virtual ends is there where dummies are not.
	body := append(make([]byte, unix.SizeofIfInfomsg), appendAttr(nil, unix.IFLA_IFNAME, append([]byte(name), 0))...)
	body = appendAttr(body, unix.IFLA_LINKINFO, appendAttr(nil, unix.IFLA_INFO_KIND, []byte("veth")))
	if err := r.ask(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body); err != nil {
		t.Skipf("this kernel makes no veth: %v", err)
	}
	t.Cleanup(func() {
		if i, err := net.InterfaceByName(name); err == nil {
			r, err := openRoute()
			if err != nil {
				return
			}
			defer r.close()
			del := make([]byte, unix.SizeofIfInfomsg)
			binary.NativeEndian.PutUint32(del[4:], uint32(i.Index))
			_ = r.ask(unix.RTM_DELLINK, 0, del)
		}
	})
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	ones, _ := addr.Mask.Size()
	family, ip := byte(unix.AF_INET), []byte(addr.IP.To4())
	if ip == nil {
		family, ip = unix.AF_INET6, addr.IP
	}
	msg := []byte{family, byte(ones), 0, unix.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(msg[4:], uint32(i.Index))
	msg = appendAttr(msg, unix.IFA_LOCAL, ip)
	msg = appendAttr(msg, unix.IFA_ADDRESS, ip)
	if err := r.ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg); err != nil {
		t.Fatal(err)
	}
}

func TestNetworkDevices(t *testing.T) {
	dummy(t, "skiff0", &net.IPNet{IP: net.IPv4(10, 99, 0, 1), Mask: net.CIDRMask(24, 32)})
	dummy(t, "skiff1", &net.IPNet{IP: net.ParseIP("fd00:99::1"), Mask: net.CIDRMask(64, 128)})
	for _, user := range []bool{false, true} {
		if user {
			dummy(t, "skiff0", &net.IPNet{IP: net.IPv4(10, 99, 0, 1), Mask: net.CIDRMask(24, 32)})
			dummy(t, "skiff1", &net.IPNet{IP: net.ParseIP("fd00:99::1"), Mask: net.CIDRMask(64, 128)})
		}
		b := newBox(t, `ls /sys/class/net; grep -c fd000099000000000000000000000001 /proc/net/if_inet6; grep -A1 '10.99.0.1$' /proc/net/fib_trie | grep -c 'host LOCAL'
for d in inside skiff1; do grep -q 0x1003 /sys/class/net/$d/flags && echo up; done`)
		if user {
			inUserNS(b)
		}
		b.l.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"skiff0": {Name: "inside"}, "skiff1": {}}
		b.prints("inside\nlo\nskiff1\n1\n2\nup\nup\n")
	}
	if _, err := net.InterfaceByName("skiff0"); err == nil {
		t.Error("the device is still here")
	}
	for words, devices := range map[string]map[string]specs.LinuxNetDevice{
		"no such network interface": {"nowhere0": {}},
		"is no name of":             {"lo": {Name: "a/b"}},
		"network device lo":         {"lo": {Name: "other"}},
	} {
		b := newBox(t, "true")
		b.l.Spec.Linux.NetDevices = devices
		b.fails(words)
	}
	dummy(t, "skiff2", &net.IPNet{IP: net.IPv4(10, 99, 2, 1), Mask: net.CIDRMask(24, 32)})
	b := newBox(t, "true")
	b.l.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"skiff2": {Name: "lo"}}
	b.fails("has a device lo")
	b = newBox(t, "ls /sys/class/net")
	b.l.Spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"skiff2": {Name: "net%d"}}
	b.prints("lo\nnet0\n")
}
