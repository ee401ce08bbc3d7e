// Package cli is the command line: docker's grammar over the API client. One
// file a verb; each verb is a function that makes its cobra command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skiff-containers/skiff/client"
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.ReadCloser
	Out, Err io.Writer
}

// Run executes one command line (without the program's name) and returns the
// exit code.
func Run(ctx context.Context, args []string, s Streams) int {
	a := &app{in: s.In, out: s.Out, err: s.Err}
	root := a.root(args)
	root.SetArgs(args)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	a.close()
	return a.report(err)
}

// statusError ends the program with a code of its own. An empty text prints
// nothing.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// report prints an error and returns the exit code for it.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	var st *statusError
	if errors.As(err, &st) {
		if st.text != "" {
			fmt.Fprintln(a.err, st.text)
		}
		return st.code
	}
	fmt.Fprintln(a.err, a.explain(err))
	return 1
}

// explain is an error's text; that no daemon answers is said in our own words.
func (a *app) explain(err error) string {
	if !client.IsConnectionFailed(err) {
		return err.Error()
	}
	host := a.host()
	text := err.Error()
	switch {
	case errors.Is(err, os.ErrPermission) || strings.Contains(text, "permission denied"):
		return fmt.Sprintf("permission denied while trying to connect to the Skiff daemon at %s", host)
	case strings.Contains(text, "client certification") || strings.Contains(text, "TLS-enabled"):
		return text
	}
	return fmt.Sprintf("Cannot connect to the Skiff daemon at %s. Is skiffd running?", host)
}

// verb is one entry of the command tree.
type verb struct {
	name  string
	group string
	make  func(*app) *cobra.Command
}

const (
	groupCommon = "common"
	groupManage = "management"
	groupOther  = "other"
)

func verbs() []verb {
	return []verb{
		{"run", groupCommon, newRun},
		{"exec", groupCommon, newExec},
		{"ps", groupCommon, newPs},
		{"build", groupCommon, newBuild},
		{"pull", groupCommon, newPull},
		{"push", groupCommon, newPush},
		{"images", groupCommon, newImages},
		{"login", groupCommon, newLogin},
		{"logout", groupCommon, newLogout},
		{"search", groupCommon, newSearch},
		{"version", groupCommon, newVersion},
		{"info", groupCommon, newInfo},

		{"builder", groupManage, newBuilderGroup},
		{"checkpoint", groupManage, newCheckpointGroup},
		{"container", groupManage, newContainerGroup},
		{"image", groupManage, newImageGroup},
		{"network", groupManage, newNetworkGroup},
		{"registry", groupManage, newRegistryGroup},
		{"system", groupManage, newSystemGroup},
		{"volume", groupManage, newVolumeGroup},

		{"attach", groupOther, newAttach},
		{"commit", groupOther, newCommit},
		{"cp", groupOther, newCp},
		{"create", groupOther, newCreate},
		{"diff", groupOther, newDiff},
		{"events", groupOther, newEvents},
		{"export", groupOther, newExport},
		{"history", groupOther, newHistory},
		{"import", groupOther, newImport},
		{"inspect", groupOther, newInspect},
		{"kill", groupOther, newKill},
		{"load", groupOther, newLoad},
		{"logs", groupOther, newLogs},
		{"pause", groupOther, newPause},
		{"port", groupOther, newPort},
		{"rename", groupOther, newRename},
		{"restart", groupOther, newRestart},
		{"rm", groupOther, newRm},
		{"rmi", groupOther, newRmi},
		{"save", groupOther, newSave},
		{"start", groupOther, newStart},
		{"stats", groupOther, newStats},
		{"stop", groupOther, newStop},
		{"tag", groupOther, newTag},
		{"top", groupOther, newTop},
		{"unpause", groupOther, newUnpause},
		{"update", groupOther, newUpdate},
		{"wait", groupOther, newWait},
	}
}

// root makes the command tree. Only the verb that args name is made, if they
// name one: a hundred commands with all their flags take longer than most
// verbs do.
func (a *app) root(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:              "skiff [OPTIONS] COMMAND [ARG...]",
		Short:            "Containers: build them, run them, connect them, ship them",
		SilenceUsage:     true,
		SilenceErrors:    true,
		TraverseChildren: true,
		Args:             cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.flags.version {
				return a.printShortVersion()
			}
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	a.flags.register(root.Flags())
	root.SetUsageFunc(usage)
	root.SetHelpFunc(help)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	root.AddGroup(&cobra.Group{ID: groupCommon, Title: "Common Commands:"},
		&cobra.Group{ID: groupManage, Title: "Management Commands:"},
		&cobra.Group{ID: groupOther, Title: "Commands:"})
	all := verbs()
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-v") {
		all = nil
	}
	if name := firstWord(root.Flags(), args); name != "" {
		for _, v := range all {
			if v.name == name {
				all = []verb{v}
				break
			}
		}
	}
	for _, v := range all {
		c := v.make(a)
		c.GroupID = v.group
		root.AddCommand(c)
	}
	cobra.EnableCommandSorting = false
	return root
}

// firstWord finds the verb: the first argument that is neither a global flag
// nor one's value.
func firstWord(fs *pflag.FlagSet, args []string) string {
	for i := 0; i < len(args); i++ {
		s := args[i]
		if !strings.HasPrefix(s, "-") || s == "-" {
			return s
		}
		if strings.Contains(s, "=") {
			continue
		}
		var f *pflag.Flag
		if name, long := strings.CutPrefix(s, "--"); long {
			f = fs.Lookup(name)
		} else if len(s) == 2 {
			f = fs.ShorthandLookup(s[1:])
		}
		if f != nil && f.NoOptDefVal == "" {
			i++
		}
	}
	return ""
}

// newGroup makes a management command of its verbs.
func newGroup(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	c.AddCommand(subs...)
	return c
}

// as gives a verb another name, for its place in a group.
func as(name string, c *cobra.Command, aliases ...string) *cobra.Command {
	_, rest, _ := strings.Cut(c.Use, " ")
	c.Use = strings.TrimSpace(name + " " + rest)
	c.Aliases = aliases
	return c
}
