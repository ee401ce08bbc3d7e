//go:build linux

package mnt

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestTakesLayers(t *testing.T) {
	for name, tc := range map[string]struct {
		known map[string]error
		other error
		want  bool
	}{
		"6.1":       {nil, nil, false},
		"6.5":       {nil, unix.EINVAL, false},
		"6.7":       {map[string]error{"lowerdir+": nil}, unix.EINVAL, true},
		"forbidden": {map[string]error{"lowerdir+": unix.EPERM}, unix.EINVAL, true}, // told by the mount
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			got := takesLayers(func(key, value string) error {
				asked++
				if err, ok := tc.known[key]; ok {
					return err
				}
				return tc.other
			})
			if got != tc.want || asked > 2 {
				t.Errorf("%v after %d questions", got, asked)
			}
		})
	}
}
