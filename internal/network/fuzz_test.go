package network

import "testing"

// FuzzResolvConf reads the host's file, which a DHCP server may have written.
func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nsearch a b\noptions ndots:1 # x\n;\ndomain\n"))
	f.Add([]byte("nameserver fe80::1%eth0\nnameserver\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, servers := parseResolvConf(data)
		for _, s := range servers {
			if !s.IsValid() {
				t.Error("an address that is none")
			}
		}
	})
}
