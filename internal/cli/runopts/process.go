package runopts

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/internal/cli/opts"
)

type (
	listFlag = opts.List
	mapFlag  = opts.Map
)

// processFlags describe the first process and its streams.
type processFlags struct {
	attach      listFlag
	interactive bool
	tty         bool
	env         listFlag
	envFiles    listFlag
	labels      listFlag
	labelFiles  listFlag
	entrypoint  string
	user        string
	workdir     string
	hostname    string
	domainname  string
	stopSignal  string
	stopTimeout int
}

func (p *processFlags) register(fs *pflag.FlagSet) {
	p.attach.Check = checkAttach
	fs.VarP(&p.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.BoolVarP(&p.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&p.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	p.env.Check = opts.CheckEnv
	fs.VarP(&p.env, "env", "e", "Set an environment variable (KEY=value, or KEY of our own)")
	fs.Var(&p.envFiles, "env-file", "Read environment variables from a file")
	p.labels.Check = opts.CheckLabel
	fs.VarP(&p.labels, "label", "l", "Set a label (key=value)")
	fs.Var(&p.labelFiles, "label-file", "Read labels from a file")
	fs.StringVar(&p.entrypoint, "entrypoint", "", "Run this instead of the image's ENTRYPOINT")
	fs.StringVarP(&p.user, "user", "u", "", "User, and group, to run as (name|uid[:group|gid])")
	fs.StringVarP(&p.workdir, "workdir", "w", "", "Working directory in the container")
	fs.StringVarP(&p.hostname, "hostname", "h", "", "Host name of the container")
	fs.StringVar(&p.domainname, "domainname", "", "NIS domain name of the container")
	fs.StringVar(&p.stopSignal, "stop-signal", "", "Signal that stops the container")
	fs.IntVar(&p.stopTimeout, "stop-timeout", 0, "Seconds a stopped container gets before it is killed")
}

func checkAttach(v string) (string, error) {
	switch s := strings.ToLower(v); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return "", fmt.Errorf("valid streams are STDIN, STDOUT and STDERR")
}

func (p *processFlags) apply(fs *pflag.FlagSet, d *Document) error {
	c := d.Config
	for _, s := range p.attach.Values {
		switch s {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		}
	}
	if p.interactive {
		c.AttachStdin = true
	}
	if len(p.attach.Values) == 0 {
		c.AttachStdout, c.AttachStderr = true, true
	}
	c.OpenStdin, c.Tty = p.interactive, p.tty
	c.StdinOnce = c.OpenStdin && c.AttachStdin

	for _, f := range p.envFiles.Values {
		env, err := opts.EnvFile(f, os.LookupEnv)
		if err != nil {
			return fmt.Errorf("--env-file: %w", err)
		}
		c.Env = append(c.Env, env...)
	}
	c.Env = append(c.Env, p.env.Values...)

	var labels []string
	for _, f := range p.labelFiles.Values {
		l, err := opts.LabelFile(f)
		if err != nil {
			return fmt.Errorf("--label-file: %w", err)
		}
		labels = append(labels, l...)
	}
	c.Labels = opts.Pairs(append(labels, p.labels.Values...))

	switch {
	case p.entrypoint != "":
		c.Entrypoint = []string{p.entrypoint}
	case fs.Changed("entrypoint"):
		// An empty one on purpose: forget the image's.
		c.Entrypoint = []string{""}
	}
	c.User, c.WorkingDir = p.user, p.workdir
	c.Hostname, c.Domainname = p.hostname, p.domainname
	c.StopSignal = p.stopSignal
	if fs.Changed("stop-timeout") {
		c.StopTimeout = &p.stopTimeout
	}
	return nil
}
