package stream

import (
	"os"
	"syscall"
	"time"
)

func forwardName(s os.Signal) string {
	switch s {
	case os.Interrupt:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	}
	return ""
}

func usualSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

func endSignals() []os.Signal { return []os.Signal{os.Interrupt} }

// sizeChanges ticks: Windows has no signal for it.
func sizeChanges() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	t := time.NewTicker(250 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-t.C:
				select {
				case c <- os.Interrupt:
				default:
				}
			}
		}
	}()
	return c, func() { t.Stop(); close(done) }
}
