//go:build linux

package oci

import (
	"errors"
	"strings"
	"testing"

	"github.com/skiff-containers/skiff/internal/runtime"
)

func TestLastError(t *testing.T) {
	for log, want := range map[string]string{
		"":                              "",
		`{"level":"warning","msg":"w"}`: "",
		`{"level":"error","msg":"a"}` + "\n" + `{"level":"error","msg":"b\n"}`:             "b",
		"not json\n" + `{"level":"fatal","msg":"f"}` + "\n" + `{"level":"info","msg":"i"}`: "f",
		`{"level":"error","msg":""}`: "",
		`{"msg":1}`:                  "",
	} {
		if got := lastError([]byte(log)); got != want {
			t.Errorf("%q gives %q, want %q", log, got, want)
		}
	}
}

func TestStartError(t *testing.T) {
	r := &runtime.External{Name: "other"}
	for said, want := range map[string]struct {
		code int
		has  string
	}{
		`runc create failed: unable to start container process: exec: "x": executable file not found in $PATH`: {127, "executable file not found"},
		"executable file `x` not found in $PATH: No such file or directory":                                    {127, `exec: "x": executable file not found in $PATH`},
		`exec: "/x": stat /x: no such file or directory`:                                                       {127, "no such file or directory"},
		`exec: "/etc": is a directory`:                                                                         {126, "is a directory"},
		"open executable: Operation not permitted":                                                             {126, `exec: "x": permission denied`},
		`error mounting "/a" to rootfs at "/b": mount /a: no such file or directory`:                           {125, "mounting"},
		"cgroups in hybrid mode not supported":                                                                 {125, "hybrid"},
	} {
		var se *runtime.StartError
		err := startError("prefix: ", r, []string{"x"}, &runtimeError{said})
		if !errors.As(err, &se) || se.Code != want.code || !strings.Contains(se.Text, want.has) || !strings.HasPrefix(se.Text, "prefix: ") {
			t.Errorf("%q gives %v", said, err)
		}
	}
}

func FuzzLastError(f *testing.F) {
	f.Add([]byte(`{"level":"error","msg":"a"}`))
	f.Fuzz(func(_ *testing.T, log []byte) { _ = lastError(log) })
}
