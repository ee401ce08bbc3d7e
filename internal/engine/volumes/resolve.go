package volumes

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Lookup finds the address of a host.
type Lookup func(ctx context.Context, host string) (netip.Addr, error)

// resolve puts a server's address in the place of its name: for others it is
// the program mount that does so, the kernel takes addresses only.
func (l local) resolve(ctx context.Context, find Lookup) (local, error) {
	cifs := l.fstype == "cifs" || l.fstype == "smb3"
	if !cifs && l.fstype != "nfs" && l.fstype != "nfs4" {
		return l, nil
	}
	words := strings.Split(l.o, ",")
	for i, w := range words {
		host, ok := strings.CutPrefix(w, "addr=")
		if !ok || host == "" {
			continue
		}
		if isAddr(host) {
			break // what counts is the first
		}
		addr, err := resolveHost(ctx, find, host)
		if err != nil {
			return l, err
		}
		words[i] = "addr=" + addr
		l.o = strings.Join(words, ",")
		return l, nil // outweighs what the device says
	}
	rest, ok := strings.CutPrefix(l.device, "//")
	if !cifs || !ok {
		return l, nil
	}
	host, share := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, share = rest[:i], rest[i:]
	}
	user := ""
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		user, host = host[:i+1], host[i+1:]
	}
	if host == "" || isAddr(host) {
		return l, nil
	}
	addr, err := resolveHost(ctx, find, host)
	if err != nil {
		return l, err
	}
	l.device = "//" + user + addr + share
	return l, nil
}

func isAddr(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

func resolveHost(ctx context.Context, find Lookup, host string) (string, error) {
	addr, err := find(ctx, host)
	if err != nil {
		return "", fmt.Errorf("error resolving passed in network volume address: %w", err)
	}
	return addr.String(), nil
}

// lookupHost asks the host's resolver, for an address of version 4 if there is one.
func lookupHost(ctx context.Context, host string) (netip.Addr, error) {
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range list {
		if a.Unmap().Is4() {
			return a.Unmap(), nil
		}
	}
	return list[0], nil // there is one where there is no error
}
