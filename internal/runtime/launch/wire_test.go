//go:build linux

package launch

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fill sets every field that v leads to, each to something else.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(fmt.Sprint("s", *n))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(-*n))
	case reflect.Uint, reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n & 0x7f))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, n)
		fill(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		panic("cannot fill " + v.Type().String())
	}
}

func TestWireKeepsEveryField(t *testing.T) {
	for _, v := range []struct{ in, out message }{
		{&request{}, &request{}}, {&answer{}, &answer{}},
	} {
		for _, full := range []bool{false, true} {
			n := 0
			if full {
				fill(reflect.ValueOf(v.in).Elem(), &n)
			}
			msg, err := encode(v.in)
			if err != nil {
				t.Fatal(err)
			}
			if err := decode(bytes.NewReader(msg), v.out); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v.in, v.out); diff != "" {
				t.Errorf("full=%v: %s", full, diff)
			}
		}
	}
}

func FuzzWire(f *testing.F) {
	var n int
	r := &request{}
	fill(reflect.ValueOf(r).Elem(), &n)
	msg, err := encode(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add(msg[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &request{}
		if decode(bytes.NewReader(data), r) != nil {
			return
		}
		// What can be read can be said again.
		msg, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		again := &request{}
		if err := decode(bytes.NewReader(msg), again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, again); d != "" {
			t.Error(d)
		}
	})
}
