package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// TestSummariesEncode fills every field there is, so that one that a newer
// version of the module adds, or moves, is noticed.
func TestSummariesEncode(t *testing.T) {
	for _, full := range []float64{0, 0.3, 0.7, 1} {
		rnd := rand.New(rand.NewPCG(1, uint64(full*10)))
		for range 50 {
			list := make(summaries, 3)
			for i := range list {
				fill(reflect.ValueOf(&list[i]).Elem(), rnd, full)
				list[i].ImageManifestDescriptor = list[0].ImageManifestDescriptor
			}
			got, err := list.append([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff("before"+viaLibrary(t, []container.Summary(list)), string(got)); diff != "" {
				t.Fatal(diff)
			}
		}
	}
	for _, l := range []summaries{{}, {{}}} {
		got, err := l.append(nil)
		if want := viaLibrary(t, []container.Summary(l)); err != nil || string(got) != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

func viaLibrary(t testing.TB, v any) string {
	var w bytes.Buffer
	enc := json.NewEncoder(&w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(w.Bytes(), []byte("\n")))
}

// fill gives a value's fields something, each with the probability full.
func fill(v reflect.Value, rnd *rand.Rand, full float64) {
	if rnd.Float64() >= full {
		return
	}
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf([]netip.Addr{
			netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.7"),
			netip.MustParseAddr("fe80::1%eth0"),
		}[rnd.IntN(4)]))
		return
	case network.HardwareAddr:
		v.SetBytes([]byte{2, 0x42, 0xac, 0x11, 0, byte(rnd.IntN(256))})
		return
	}
	switch v.Kind() { //nolint:exhaustive // what the types have
	case reflect.String:
		v.SetString([]string{"plain", "two words", `"quoted"`, `back\slash`, "<&>", "ünï", "\x00\x1f\x7f", "bad\xff", "\u2028"}[rnd.IntN(9)])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(rnd.Int64() - 1<<62)
	case reflect.Uint16, reflect.Uint64, reflect.Uint8:
		v.SetUint(1 + rnd.Uint64N(255))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), rnd, full)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), rnd, full)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rnd.IntN(3), 3))
		for i := range v.Len() {
			fill(v.Index(i), rnd, full)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rnd.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(key, rnd, 1)
			fill(value, rnd, full)
			v.SetMapIndex(key, value)
		}
	}
}

// manySummaries is what a list of containers usually has.
func manySummaries(n int) summaries {
	out := make(summaries, n)
	for i := range out {
		c := &out[i]
		c.ID, c.Names = fmt.Sprintf("%064x", i), []string{fmt.Sprintf("/box%d", i)}
		c.Image, c.ImageID = "busybox", "sha256:"+fmt.Sprintf("%064x", i)
		c.Command, c.Created, c.State, c.Status = "sh -c 'sleep 1000'", 1700000000, "running", "Up 5 minutes"
		c.Ports = []container.PortSummary{{IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}}
		c.Labels = map[string]string{"com.example.project": "bench", "com.example.number": "7", "group": "g1"}
		c.HostConfig.NetworkMode = "bridge"
		c.Health = &container.HealthSummary{Status: container.NoHealthcheck}
		c.Mounts = []container.MountPoint{}
		c.NetworkSettings = &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{"bridge": {
			NetworkID: c.ID, EndpointID: c.ID, Gateway: netip.MustParseAddr("172.17.0.1"), IPAddress: netip.MustParseAddr("172.17.0.2"),
			MacAddress: network.HardwareAddr{2, 0x42, 0xac, 0x11, 0, 2}, IPPrefixLen: 16,
		}}}
	}
	return out
}

func BenchmarkSummaries(b *testing.B) {
	list := manySummaries(1000)
	b.Run("here", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf, _ = list.append(buf[:0])
		}
		b.SetBytes(int64(len(buf)))
	})
	b.Run("encoding/json", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n = len(viaLibrary(b, []container.Summary(list)))
		}
		b.SetBytes(int64(n))
	})
}
