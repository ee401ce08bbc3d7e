package runopts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// securityFlags are privileges.
type securityFlags struct {
	capAdd, capDrop listFlag
	privileged      bool
	options         listFlag
	groupAdd        listFlag
	readOnly        bool
}

func (s *securityFlags) register(fs *pflag.FlagSet) {
	fs.Var(&s.capAdd, "cap-add", "Add a Linux capability")
	fs.Var(&s.capDrop, "cap-drop", "Drop a Linux capability")
	fs.BoolVar(&s.privileged, "privileged", false, "Give the container all privileges")
	fs.Var(&s.options, "security-opt", "Security option (seccomp=FILE, no-new-privileges, ...)")
	fs.Var(&s.groupAdd, "group-add", "Join a further group")
	fs.BoolVar(&s.readOnly, "read-only", false, "Mount the root file system read-only")
}

func (s *securityFlags) apply(_ *pflag.FlagSet, d *Document) error {
	hc := d.Host
	hc.CapAdd, hc.CapDrop = s.capAdd.Values, s.capDrop.Values
	hc.Privileged = s.privileged
	hc.GroupAdd = s.groupAdd.Values
	hc.ReadonlyRootfs = s.readOnly
	for _, o := range s.options.Values {
		if o == "systempaths=unconfined" {
			// Empty, not nil: nil would mean the defaults.
			hc.MaskedPaths, hc.ReadonlyPaths = []string{}, []string{}
			continue
		}
		o, err := securityOption(o)
		if err != nil {
			return err
		}
		hc.SecurityOpt = append(hc.SecurityOpt, o)
	}
	return nil
}

// securityOption puts a seccomp profile's text in place of its file's name:
// the daemon may be on another machine.
func securityOption(o string) (string, error) {
	k, v, ok := strings.Cut(o, "=")
	if !ok && k != "no-new-privileges" {
		k, v, ok = strings.Cut(o, ":")
		if !ok {
			return "", fmt.Errorf("invalid --security-opt: %q", o)
		}
		o = k + "=" + v
	}
	if k != "seccomp" || v == "unconfined" || v == "builtin" {
		return o, nil
	}
	text, err := os.ReadFile(v)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", v, err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", v, err)
	}
	return "seccomp=" + b.String(), nil
}
