package apiserver

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// summaries is a list of containers as JSON: the answer that grows with the host
// and that clients ask for all day, so its types are written by hand, to the
// byte as encoding/json does (TestSummariesEncode), in an eighth of the time.
type summaries []container.Summary

// MarshalJSON is what encoding/json asks for where a list is part of more.
func (l summaries) MarshalJSON() ([]byte, error) { return l.append(nil) }

func (l summaries) append(b []byte) ([]byte, error) {
	e := encoder{b: append(b, '[')}
	for i := range l {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.summary(&l[i])
	}
	e.b = append(e.b, ']')
	return e.b, e.err
}

// encoder appends JSON.
type encoder struct {
	b    []byte
	err  error
	keys []string // of maps; reused
	// The last descriptor: containers of one image have the same.
	manifest *ocispec.Descriptor
	encoded  []byte
}

func (e *encoder) raw(s string)        { e.b = append(e.b, s...) }
func (e *encoder) integer(n int64)     { e.b = strconv.AppendInt(e.b, n, 10) }
func (e *encoder) boolean(v bool)      { e.b = strconv.AppendBool(e.b, v) }
func (e *encoder) field(key, v string) { e.raw(key); e.text(v) }

// optional is field, left out when empty.
func (e *encoder) optional(key, v string) {
	if v != "" {
		e.field(key, v)
	}
}

func (e *encoder) text(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			e.other(s)
			return
		}
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, s...)
	e.b = append(e.b, '"')
}

// other leaves a value to encoding/json.
func (e *encoder) other(v any) {
	var w bytes.Buffer
	enc := json.NewEncoder(&w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil && e.err == nil {
		e.err = err
	}
	e.b = append(e.b, bytes.TrimSuffix(w.Bytes(), []byte("\n"))...)
}

func (e *encoder) texts(list []string) {
	if list == nil {
		e.raw("null")
		return
	}
	e.b = append(e.b, '[')
	for i, s := range list {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.text(s)
	}
	e.b = append(e.b, ']')
}

func (e *encoder) textMap(m map[string]string) {
	if m == nil {
		e.raw("null")
		return
	}
	e.keys = slices.AppendSeq(e.keys[:0], maps.Keys(m))
	slices.Sort(e.keys)
	e.b = append(e.b, '{')
	for i, k := range e.keys {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.text(k)
		e.b = append(e.b, ':')
		e.text(m[k])
	}
	e.b = append(e.b, '}')
}

func (e *encoder) address(key string, a netip.Addr) {
	e.raw(key)
	e.b = append(e.b, '"')
	if a.Zone() != "" {
		e.b = e.b[:len(e.b)-1]
		e.other(a)
		return
	}
	if a.IsValid() {
		e.b = a.AppendTo(e.b)
	}
	e.b = append(e.b, '"')
}

func (e *encoder) summary(c *container.Summary) {
	e.field(`{"Id":`, c.ID)
	e.raw(`,"Names":`)
	e.texts(c.Names)
	e.field(`,"Image":`, c.Image)
	e.field(`,"ImageID":`, c.ImageID)
	if c.ImageManifestDescriptor != nil {
		e.raw(`,"ImageManifestDescriptor":`)
		e.descriptor(c.ImageManifestDescriptor)
	}
	e.field(`,"Command":`, c.Command)
	e.raw(`,"Created":`)
	e.integer(c.Created)
	e.raw(`,"Ports":`)
	e.ports(c.Ports)
	if c.SizeRw != 0 {
		e.raw(`,"SizeRw":`)
		e.integer(c.SizeRw)
	}
	if c.SizeRootFs != 0 {
		e.raw(`,"SizeRootFs":`)
		e.integer(c.SizeRootFs)
	}
	e.raw(`,"Labels":`)
	e.textMap(c.Labels)
	e.field(`,"State":`, string(c.State))
	e.field(`,"Status":`, c.Status)
	e.raw(`,"HostConfig":{`)
	e.optional(`"NetworkMode":`, c.HostConfig.NetworkMode)
	if len(c.HostConfig.Annotations) > 0 {
		if c.HostConfig.NetworkMode != "" {
			e.raw(",")
		}
		e.raw(`"Annotations":`)
		e.textMap(c.HostConfig.Annotations)
	}
	e.raw("}")
	if h := c.Health; h != nil {
		e.field(`,"Health":{"Status":`, string(h.Status))
		e.raw(`,"FailingStreak":`)
		e.integer(int64(h.FailingStreak))
		e.raw("}")
	}
	e.raw(`,"NetworkSettings":`)
	e.networks(c.NetworkSettings)
	e.raw(`,"Mounts":`)
	e.mounts(c.Mounts)
	e.raw("}")
}

func (e *encoder) descriptor(d *ocispec.Descriptor) {
	if e.manifest != d {
		start := len(e.b)
		e.other(d)
		e.manifest, e.encoded = d, slices.Clone(e.b[start:])
		return
	}
	e.b = append(e.b, e.encoded...)
}

func (e *encoder) ports(ports []container.PortSummary) {
	if ports == nil {
		e.raw("null")
		return
	}
	e.b = append(e.b, '[')
	for i := range ports {
		p := &ports[i]
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.address(`{"IP":`, p.IP)
		e.raw(`,"PrivatePort":`)
		e.integer(int64(p.PrivatePort))
		if p.PublicPort != 0 {
			e.raw(`,"PublicPort":`)
			e.integer(int64(p.PublicPort))
		}
		e.field(`,"Type":`, p.Type)
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, ']')
}

func (e *encoder) networks(s *container.NetworkSettingsSummary) {
	if s == nil || s.Networks == nil {
		e.other(s)
		return
	}
	names := slices.Sorted(maps.Keys(s.Networks))
	e.raw(`{"Networks":{`)
	for i, name := range names {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.text(name)
		e.b = append(e.b, ':')
		e.endpoint(s.Networks[name])
	}
	e.raw("}}")
}

func (e *encoder) endpoint(p *network.EndpointSettings) {
	if p == nil || p.IPAMConfig != nil {
		e.other(p)
		return
	}
	e.raw(`{"IPAMConfig":null,"Links":`)
	e.texts(p.Links)
	e.raw(`,"Aliases":`)
	e.texts(p.Aliases)
	e.raw(`,"DriverOpts":`)
	e.textMap(p.DriverOpts)
	e.raw(`,"GwPriority":`)
	e.integer(int64(p.GwPriority))
	e.field(`,"NetworkID":`, p.NetworkID)
	e.field(`,"EndpointID":`, p.EndpointID)
	e.address(`,"Gateway":`, p.Gateway)
	e.address(`,"IPAddress":`, p.IPAddress)
	e.field(`,"MacAddress":`, p.MacAddress.String())
	e.raw(`,"IPPrefixLen":`)
	e.integer(int64(p.IPPrefixLen))
	e.address(`,"IPv6Gateway":`, p.IPv6Gateway)
	e.address(`,"GlobalIPv6Address":`, p.GlobalIPv6Address)
	e.raw(`,"GlobalIPv6PrefixLen":`)
	e.integer(int64(p.GlobalIPv6PrefixLen))
	e.raw(`,"DNSNames":`)
	e.texts(p.DNSNames)
	e.raw("}")
}

func (e *encoder) mounts(mounts []container.MountPoint) {
	if mounts == nil {
		e.raw("null")
		return
	}
	e.b = append(e.b, '[')
	for i := range mounts {
		m := &mounts[i]
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.raw("{")
		if m.Type != "" {
			e.field(`"Type":`, string(m.Type))
			e.raw(",")
		}
		if m.Name != "" {
			e.field(`"Name":`, m.Name)
			e.raw(",")
		}
		e.field(`"Source":`, m.Source)
		e.field(`,"Destination":`, m.Destination)
		e.optional(`,"Driver":`, m.Driver)
		e.field(`,"Mode":`, m.Mode)
		e.raw(`,"RW":`)
		e.boolean(m.RW)
		e.field(`,"Propagation":`, string(m.Propagation))
		e.raw("}")
	}
	e.b = append(e.b, ']')
}
