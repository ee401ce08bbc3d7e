package volumes

// TrashOf is for tests that set up a crash.
func TrashOf(name string) string { return trashOf(name) }
