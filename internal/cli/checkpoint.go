package cli

import (
	"fmt"

	"github.com/moby/moby/api/types/checkpoint"
	"github.com/spf13/cobra"

	"github.com/skiff-containers/skiff/internal/cli/format"
)

func newCheckpointGroup(a *app) *cobra.Command {
	return newGroup("checkpoint", "Manage checkpoints (an experimental daemon's)", newCheckpointCreate(a), newCheckpointLs(a), newCheckpointRm(a))
}

const checkpointDirHelp = "Where checkpoints are kept"

func newCheckpointCreate(a *app) *cobra.Command {
	var dir string
	var leaveRunning bool
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] CONTAINER CHECKPOINT",
		Short: "Save a running container to disk",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			err = cl.CheckpointCreate(cmd.Context(), args[0], checkpoint.CreateRequest{CheckpointID: args[1], CheckpointDir: dir, Exit: !leaveRunning})
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, args[1])
			return nil
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers("running")),
	}
	cmd.Flags().StringVar(&dir, "checkpoint-dir", "", checkpointDirHelp)
	cmd.Flags().BoolVar(&leaveRunning, "leave-running", false, "Let the container go on")
	return cmd
}

func newCheckpointLs(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS] CONTAINER",
		Aliases: []string{"list"},
		Short:   "List checkpoints of a container",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			list, err := cl.CheckpointList(cmd.Context(), args[0], dir)
			if err != nil {
				return err
			}
			return checkpointTable().Write(a.out, "table", false, list)
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers()),
	}
	cmd.Flags().StringVar(&dir, "checkpoint-dir", "", checkpointDirHelp)
	return cmd
}

func checkpointTable() *format.Table[checkpoint.Summary] {
	return &format.Table[checkpoint.Summary]{
		Columns: []format.Column[checkpoint.Summary]{
			format.Col("Name", "CHECKPOINT NAME", func(c checkpoint.Summary) string { return c.Name }),
		},
		Default: "{{.Name}}",
	}
}

func newCheckpointRm(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER CHECKPOINT",
		Aliases: []string{"remove"},
		Short:   "Remove a checkpoint",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return cl.CheckpointRemove(cmd.Context(), args[0], dir, args[1])
		},
		ValidArgsFunction: a.completeFirst(a.completeContainers()),
	}
	cmd.Flags().StringVar(&dir, "checkpoint-dir", "", checkpointDirHelp)
	return cmd
}
