package images

import "golang.org/x/sync/semaphore"

// Limits are how many layers all verbs together transfer at once; what is 0 is
// docker's.
type Limits struct{ Downloads, Uploads int }

// limits are those, at work.
type limits struct{ downloads, uploads *semaphore.Weighted }

// SetLimits changes what bounds transfers that begin; those under way go on.
func (s *Service) SetLimits(l Limits) {
	slots := func(n, otherwise int) *semaphore.Weighted {
		if n <= 0 {
			n = otherwise
		}
		return semaphore.NewWeighted(int64(n))
	}
	s.limits.Store(&limits{slots(l.Downloads, 3), slots(l.Uploads, 5)})
}
