//go:build linux

package mnt

import (
	"strings"
	"testing"
)

// FuzzParseOptions sorts words into flags: none is both set and cleared.
func FuzzParseOptions(f *testing.F) {
	f.Add("rbind,ro,rro,rw,size=1m,x-skiff.subpath=a,shared,tmpcopyup")
	f.Fuzz(func(t *testing.T, s string) {
		o := ParseOptions(strings.Split(s, ","))
		const times = 0x70 // of access: naming one clears the others
		if o.Set&o.Clear&^times != 0 || o.RecSet&o.RecClear&^times != 0 {
			t.Errorf("%q sets and clears %+v", s, o)
		}
	})
}
