package cleanup_test

import (
	"slices"
	"testing"

	"github.com/skiff-containers/skiff/internal/kit/cleanup"
)

func TestRunUndoesInReverse(t *testing.T) {
	var got []int
	var undo cleanup.Stack
	for i := range 3 {
		undo.Push(func() { got = append(got, i) })
	}
	undo.Run()
	undo.Run()
	if want := []int{2, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("ran %v, want %v, once", got, want)
	}
}

func TestReleaseKeeps(t *testing.T) {
	var undo cleanup.Stack
	undo.Push(func() { t.Error("released step ran") })
	undo.Release()
	undo.Run()
}
