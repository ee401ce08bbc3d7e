//go:build linux

package ociruntime

import (
	"testing"
)

// FuzzDecodeSpec reads configurations that others wrote.
func FuzzDecodeSpec(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"1.2.0","root":{"path":"rootfs"},"process":{"args":["true"],"cwd":"/"},"linux":{"namespaces":[{"type":"mount"}]}}`))
	f.Add([]byte(`{"ociVersion":"1.","root":null,"process":{"args":[""],"cwd":"/","capabilities":null,"rlimits":[{}]},"linux":{"resources":{"devices":[{}]}}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSpec(data)
		if err == nil && (s.Process == nil || s.Root == nil || s.Linux == nil || len(s.Process.Args) == 0) {
			t.Errorf("%s is taken", data)
		}
	})
}
