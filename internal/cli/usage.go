package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usage prints the short form that follows an error, help the long one. They
// are code and not templates so that a command line without --format never
// touches the template engine.
func usage(cmd *cobra.Command) error {
	printUsage(cmd.OutOrStderr(), cmd)
	return nil
}

func help(cmd *cobra.Command, _ []string) {
	w := cmd.OutOrStdout()
	printUsage(w, cmd)
}

func printUsage(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(w, "Usage:  %s\n", useLine(cmd))
	if d := description(cmd); d != "" {
		fmt.Fprintf(w, "\n%s\n", d)
	}
	if names := otherNames(cmd); names != "" {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", names)
	}
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	printCommands(w, cmd)
	printFlags(w, cmd)
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
}

func description(cmd *cobra.Command) string {
	if cmd.Long != "" {
		return cmd.Long
	}
	return cmd.Short
}

// useLine is the first line of help: a group says COMMAND, a verb its grammar.
func useLine(cmd *cobra.Command) string {
	if cmd.HasParent() && cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	if cmd.HasParent() {
		return cmd.Parent().CommandPath() + " " + cmd.Use
	}
	return cmd.Use
}

// namesKey annotates a verb with all the names it goes by.
const namesKey = "names"

func otherNames(cmd *cobra.Command) string {
	if n := cmd.Annotations[namesKey]; n != "" {
		var out []string
		for _, s := range strings.Split(n, ",") {
			out = append(out, cmd.Root().Name()+" "+strings.TrimSpace(s))
		}
		return strings.Join(out, ", ")
	}
	if len(cmd.Aliases) == 0 {
		return ""
	}
	var out []string
	for _, s := range append([]string{cmd.Name()}, cmd.Aliases...) {
		out = append(out, cmd.Parent().CommandPath()+" "+s)
	}
	return strings.Join(out, ", ")
}

func printCommands(w io.Writer, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	list := func(title, group string) {
		first := true
		for _, c := range cmd.Commands() {
			if !c.IsAvailableCommand() || c.GroupID != group {
				continue
			}
			if first {
				fmt.Fprintf(w, "\n%s\n", title)
				first = false
			}
			fmt.Fprintf(w, "  %-11s %s\n", c.Name(), c.Short)
		}
	}
	for _, g := range cmd.Groups() {
		list(g.Title, g.ID)
	}
	list("Commands:", "")
}

func printFlags(w io.Writer, cmd *cobra.Command) {
	title := "Options:"
	if !cmd.HasParent() {
		title = "Global Options:"
	}
	fs := cmd.LocalFlags()
	if !fs.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(w, "\n%s\n%s", title, fs.FlagUsagesWrapped(min(width(w, 80), 120)))
}

// flagError is what a wrong flag ends in: docker's code and words.
func flagError(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &statusError{125, fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", err, useLine(cmd), cmd.CommandPath())}
}

func usageError(cmd *cobra.Command, format string, args ...any) error {
	text := fmt.Sprintf("skiff: "+format, args...)
	return &statusError{1, fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", text, useLine(cmd), cmd.CommandPath())}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	text := fmt.Sprintf("skiff: unknown command: %s %s\n", cmd.CommandPath(), name)
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		text += "\nDid you mean: " + strings.Join(s, ", ") + "\n"
	}
	if cmd.HasParent() {
		text += fmt.Sprintf("\nUsage:  %s COMMAND\n", cmd.CommandPath())
	}
	return &statusError{1, text + fmt.Sprintf("\nRun '%s --help' for more information", cmd.CommandPath())}
}

// Argument counts, in docker's words.

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError(cmd, "'%s' accepts no arguments", cmd.CommandPath())
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return usageError(cmd, "'%s' requires %d %s", cmd.CommandPath(), n, plural(n))
	}
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return usageError(cmd, "'%s' requires at least %d %s", cmd.CommandPath(), n, plural(n))
	}
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return usageError(cmd, "'%s' requires at most %d %s", cmd.CommandPath(), n, plural(n))
	}
}

func rangeArgs(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= lo && len(args) <= hi {
			return nil
		}
		return usageError(cmd, "'%s' requires at least %d and at most %d %s", cmd.CommandPath(), lo, hi, plural(hi))
	}
}

func plural(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}

// noShortHelp frees -h for a flag of the verb's own.
func noShortHelp(fs *pflag.FlagSet) { fs.Bool("help", false, "Print usage") }
