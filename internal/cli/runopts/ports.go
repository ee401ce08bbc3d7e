package runopts

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// publish adds one -p to the bindings: [[IP:][HOST]:]CONTAINER[/PROTO], where
// ports may be ranges, or the long form target=80,published=8080,protocol=tcp.
func publish(m network.PortMap, spec string) error {
	s := spec
	if strings.Contains(spec, "=") {
		var err error
		if s, err = shortForm(spec); err != nil {
			return err
		}
	}
	ip, host, ctr, proto, err := splitPublish(s)
	if err != nil {
		return err
	}
	c, err := portRange(ctr)
	if err != nil {
		return fmt.Errorf("invalid containerPort: %s", ctr)
	}
	if host == "" {
		return addPorts(m, ip, proto, c, func(uint16) string { return "" })
	}
	h, err := portRange(host)
	if err != nil {
		return fmt.Errorf("invalid hostPort: %s", host)
	}
	switch {
	case h.len() == c.len():
		return addPorts(m, ip, proto, c, func(p uint16) string { return strconv.Itoa(int(h.start) + int(p-c.start)) })
	case c.len() == 1:
		// Any free one of the range.
		return addPorts(m, ip, proto, c, func(uint16) string { return host })
	}
	return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", ctr, host)
}

func addPorts(m network.PortMap, ip netip.Addr, proto string, c ports, host func(uint16) string) error {
	for n := int(c.start); n <= int(c.end); n++ {
		p, ok := network.PortFrom(uint16(n), network.IPProtocol(proto))
		if !ok {
			return fmt.Errorf("invalid proto: %s", proto)
		}
		b := network.PortBinding{HostIP: ip, HostPort: host(uint16(n))}
		m[p] = append(m[p], b)
	}
	return nil
}

func splitPublish(s string) (ip netip.Addr, host, ctr, proto string, err error) {
	rest, proto, hasProto := strings.Cut(s, "/")
	if !hasProto {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	switch proto {
	case "tcp", "udp", "sctp":
	default:
		return ip, "", "", "", fmt.Errorf("invalid proto: %s", proto)
	}
	ctr = rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		rest, ctr = rest[:i], rest[i+1:]
		host = rest
		if i := strings.LastIndexByte(rest, ':'); i >= 0 {
			rawIP := rest[:i]
			host = rest[i+1:]
			if ip, err = hostIP(rawIP); err != nil {
				return ip, "", "", "", err
			}
		}
	}
	if ctr == "" {
		return ip, "", "", "", fmt.Errorf("no port specified: %s<empty>", s)
	}
	return ip, host, ctr, proto, nil
}

func hostIP(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	ip, err := netip.ParseAddr(bare)
	if err != nil {
		return ip, fmt.Errorf("invalid IP address: %s", s)
	}
	return ip, nil
}

type ports struct{ start, end uint16 }

func (p ports) len() int { return int(p.end) - int(p.start) + 1 }

func portRange(s string) (ports, error) {
	a, b, has := strings.Cut(s, "-")
	start, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return ports{}, err
	}
	end := start
	if has {
		if end, err = strconv.ParseUint(b, 10, 16); err != nil {
			return ports{}, err
		}
	}
	if end < start {
		return ports{}, errors.New("invalid range")
	}
	return ports{uint16(start), uint16(end)}, nil
}

// shortForm rewrites the long form.
func shortForm(spec string) (string, error) {
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return "", err
	}
	var target, published, proto string
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok || v == "" {
			return "", fmt.Errorf("invalid field: %s", f)
		}
		switch strings.ToLower(k) {
		case "protocol":
			proto = strings.ToLower(v)
		case "mode":
			if v != "ingress" && v != "host" {
				return "", fmt.Errorf("invalid publish mode (%s): must be either \"ingress\" or \"host\"", v)
			}
		case "target":
			target = v
		case "published":
			published = v
		default:
			return "", fmt.Errorf("invalid field key: %s", k)
		}
	}
	if target == "" {
		return "", errors.New("missing mandatory field 'target'")
	}
	out := target
	if published != "" {
		out = published + ":" + target
	}
	if proto != "" {
		out += "/" + proto
	}
	return out, nil
}
