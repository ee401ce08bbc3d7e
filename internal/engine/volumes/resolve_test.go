package volumes

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestResolve(t *testing.T) {
	hosts := map[string]string{"nas": "192.0.2.7", "six": "2001:db8::7"}
	find := func(_ context.Context, host string) (netip.Addr, error) {
		if a, ok := hosts[host]; ok {
			return netip.MustParseAddr(a), nil
		}
		return netip.Addr{}, errors.New("lookup " + host + ": no such host")
	}
	for name, tc := range map[string]struct {
		in, want local // fstype of want is that of in
		err      string
	}{
		"nfs by name":             {in: local{"nfs", ":/export", "addr=nas,rw,vers=4", 0}, want: local{device: ":/export", o: "addr=192.0.2.7,rw,vers=4"}},
		"nfs4, not the first":     {in: local{"nfs4", ":/export", "rw,addr=nas", 0}, want: local{device: ":/export", o: "rw,addr=192.0.2.7"}},
		"version 6":               {in: local{"nfs", ":/export", "addr=six", 0}, want: local{device: ":/export", o: "addr=2001:db8::7"}},
		"nfs by address":          {in: local{"nfs", ":/export", "addr=198.51.100.1", 0}, want: local{device: ":/export", o: "addr=198.51.100.1"}},
		"by address of version 6": {in: local{"nfs", ":/export", "addr=2001:db8::1", 0}, want: local{device: ":/export", o: "addr=2001:db8::1"}},
		"mountaddr is another":    {in: local{"nfs", ":/export", "mountaddr=nas", 0}, want: local{device: ":/export", o: "mountaddr=nas"}},
		"nfs without addr":        {in: local{"nfs", "nas:/export", "rw", 0}, want: local{device: "nas:/export", o: "rw"}},
		"nfs, nobody there":       {in: local{"nfs", ":/export", "addr=none", 0}, err: "error resolving passed in network volume address: lookup none: no such host"},
		"cifs by its device":      {in: local{"cifs", "//nas/share/dir", "username=u", 0}, want: local{device: "//192.0.2.7/share/dir", o: "username=u"}},
		"cifs, a name with user":  {in: local{"cifs", "//me@nas/my share", "", 0}, want: local{device: "//me@192.0.2.7/my share"}},
		"cifs by addr":            {in: local{"cifs", "//nas/share", "addr=nas", 0}, want: local{device: "//nas/share", o: "addr=192.0.2.7"}},
		"cifs, addr an address":   {in: local{"cifs", "//nas/share", "addr=198.51.100.1", 0}, want: local{device: "//192.0.2.7/share", o: "addr=198.51.100.1"}},
		"cifs by address":         {in: local{"cifs", "//198.51.100.1/share", "", 0}, want: local{device: "//198.51.100.1/share"}},
		"cifs, brackets":          {in: local{"cifs", "//[2001:db8::1]/share", "", 0}, want: local{device: "//[2001:db8::1]/share"}},
		"cifs, host only":         {in: local{"smb3", "//nas", "", 0}, want: local{device: "//192.0.2.7"}},
		"cifs, nobody there":      {in: local{"cifs", "//none/share", "", 0}, err: "lookup none: no such host"},
		"cifs, backslashes":       {in: local{"cifs", `\\nas\share`, "", 0}, want: local{device: `\\nas\share`}},
		"others are left alone":   {in: local{"tmpfs", "//nas/x", "addr=nas", 0}, want: local{device: "//nas/x", o: "addr=nas"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.in.resolve(t.Context(), find)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v", err)
				}
				return
			}
			tc.want.fstype = tc.in.fstype
			if err != nil || got != tc.want {
				t.Errorf("%+v %v, want %+v", got, err, tc.want)
			}
		})
	}
}
