package containers

import (
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/skiff-containers/skiff/internal/kit/errs"
	"github.com/skiff-containers/skiff/internal/kit/ids"
)

// Words for the names of containers that were given none: weather and water
// first, boats second.
const (
	adjectives = `amber ardent azure balmy bold brave breezy bright brisk buoyant calm candid clear coastal coral
		crisp cunning daring deep deft dusky eager early easy fair fearless fleet foggy free fresh frosty gentle
		glassy golden grand hardy hazy honest jaunty jolly keen kind lively lucid lunar mellow merry misty nimble
		noble patient placid plucky polar proud quick quiet rapid ready roaming rosy rugged salty serene sharp
		silent silver sleek smooth snug solar sound spry steady stellar still stout sturdy sunny sure swift
		tidal tidy tranquil trusty upbeat vast vivid warm wavy wily windy wise zesty`
	nouns = `anchor argosy barge bark barque beacon bilge boom bosun bow bowsprit breaker buoy cabin canoe capstan
		caravel carrack catamaran clipper coble cog compass corsair coxswain current cutter dhow dinghy dock dory
		estuary ferry fjord frigate galleon galley gig gunwale halyard harbour haven hawser helm hull islet jetty
		jib junk kayak keel ketch knot lagoon lantern launch lighter longship lugger mast mooring oar outrigger
		paddle pier pilot pinnace port prow punt quay raft reef rigging rudder sail sampan schooner scow sextant
		shallop shoal skipper sloop spar spinnaker stern swell tender tide tiller topsail trawler trimaran tug
		wake wharf wherry windlass xebec yawl`
)

func pick(words string) string {
	list := strings.Fields(words)
	return list[rand.IntN(len(list))] // names need not be hard to guess
}

// randomName makes a name; from the second try on, one that is less likely to
// be taken.
func randomName(try int) string {
	name := pick(adjectives) + "_" + pick(nouns)
	if try > 0 {
		name += strconv.Itoa(rand.IntN(10))
	}
	return name
}

// reserveName takes the wanted name, or invents one.
func (s *Service) reserveName(want, id string) (string, error) {
	if want != "" {
		name := strings.TrimPrefix(want, "/")
		if !ids.ValidName(name) {
			return "", errs.Newf(errs.Invalid, "Invalid container name (%s), only %s are allowed", want, ids.NamePattern)
		}
		return name, s.index.reserve(name, id)
	}
	for try := range 6 {
		if name := randomName(try); s.index.reserve(name, id) == nil {
			return name, nil
		}
	}
	name := ids.Short(id)
	return name, s.index.reserve(name, id)
}
