package cli

import "github.com/spf13/cobra"

func newContainerGroup(a *app) *cobra.Command {
	return newGroup("container", "Manage containers",
		newAttach(a), newCommit(a), newCp(a), newCreate(a), newDiff(a), newExec(a), newExport(a),
		newInspectOf(a, "CONTAINER", "Display detailed information on one or more containers", inspectContainer, true, a.completeContainers()),
		newKill(a), newLogs(a), as("ls", newPs(a), "ps", "list"), newPause(a), newPort(a), newContainerPrune(a),
		newRename(a), newRestart(a), withAliases(newRm(a), "remove"), newRun(a), newStart(a), newStats(a), newStop(a),
		newTop(a), newUnpause(a), newUpdate(a), newWait(a))
}

func newImageGroup(a *app) *cobra.Command {
	return newGroup("image", "Manage images",
		newBuild(a), newHistory(a), newImport(a),
		newImageInspect(a),
		newLoad(a), as("ls", newImages(a), "list"), newImagePrune(a), newPull(a), newPush(a),
		as("rm", newRmi(a), "rmi", "remove"), newSave(a), newTag(a))
}

func newNetworkGroup(a *app) *cobra.Command {
	return newGroup("network", "Manage networks",
		newNetworkConnect(a), newNetworkCreate(a), newNetworkDisconnect(a),
		newNetworkInspect(a), newNetworkLs(a), newNetworkPrune(a), newNetworkRm(a))
}

func newVolumeGroup(a *app) *cobra.Command {
	return newGroup("volume", "Manage volumes",
		newVolumeCreate(a),
		newInspectOf(a, "VOLUME", "Display detailed information on one or more volumes", inspectVolume, false, a.completeVolumes),
		newVolumeLs(a), newVolumePrune(a), newVolumeRm(a))
}

func newBuilderGroup(a *app) *cobra.Command {
	return newGroup("builder", "Manage builds", newBuild(a), newBuilderPrune(a))
}

func newSystemGroup(a *app) *cobra.Command {
	return newGroup("system", "Manage Skiff",
		newSystemDf(a), newDialStdio(a), newEvents(a), newInfo(a), newSystemInstall(a), newSystemPrune(a))
}

func newRegistryGroup(a *app) *cobra.Command {
	return newGroup("registry", "Run a registry", newRegistryServe(a))
}

func withAliases(c *cobra.Command, aliases ...string) *cobra.Command {
	c.Aliases = aliases
	return c
}
