package cli

func replaceSelf(path string, args []string) error { return runChild(path, args) }
