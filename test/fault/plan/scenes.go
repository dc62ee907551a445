package plan

import (
	"math/rand/v2"
	"time"
)

// Scene is a few faults that only together come near one of the guards by which
// nothing is lost or invented. Every plan has one, beside faults that strike by
// chance.
type Scene string

// The scenes.
const (
	// Fence lets an owner's commit arrive at Redis after another has taken its
	// partitions over.
	Fence Scene = "fence"
	// Forget makes Redis forget everything under an owner that goes on.
	Forget Scene = "forget"
	// Offset kills an owner in the middle of its commits.
	Offset Scene = "offset"
	// Outbox kills an owner that could not send what it has committed.
	Outbox Scene = "outbox"
	// Watermark has what was sent be sent again, by the same owner and by another.
	Watermark Scene = "watermark"
	// Intent kills the notifiers while what they journal gets no answer and
	// receivers that were away can be told.
	Intent Scene = "intent"
	// Log loses what NATS holds of the log.
	Log Scene = "log"
	// Clocks sets the clocks of those who tell receivers, who are away meanwhile.
	Clocks Scene = "clocks"
)

// Scenes are all of them, and drawn those that are drawn for any plan: what is
// lost is drawn beside them.
var (
	Scenes = append([]Scene{Log}, drawn...)
	drawn  = []Scene{Fence, Forget, Offset, Outbox, Watermark, Intent, Clocks}
)

// sceneTime is how long a scene takes at most.
const sceneTime = 6500 * ms

// draw returns the scene's faults, from an instant on.
func (s Scene) draw(r *rand.Rand, at time.Duration) []Fault {
	owner := []string{Alerter1, Alerter2}[r.IntN(2)]
	jitter := func(d time.Duration) time.Duration { return between(r, d*9/10, d*11/10) }
	switch s {
	case Fence:
		// Every partition of the owner has a commit on its way when it loses its leases.
		return []Fault{
			{Kind: Stall, Who: To(owner, Redis), At: at, For: 6000 * ms},
			{Kind: Cut, Who: To(owner, NATS), At: at + jitter(600*ms), For: 5000 * ms},
		}
	case Forget:
		return []Fault{{Kind: Flush, Who: Redis, At: at, For: ms}}
	case Offset:
		// Where a commit is several commands, the first of them is done.
		return []Fault{
			{Kind: Mute, Who: To(owner, Redis), At: at, For: 1200 * ms},
			{Kind: Kill, Who: owner, At: at + jitter(500*ms), For: 500 * ms},
		}
	case Outbox:
		return []Fault{
			{Kind: Cut, Who: To(owner, Notifiers), At: at, For: 3000 * ms},
			{Kind: Kill, Who: owner, At: at + jitter(1500*ms), For: 1000 * ms},
		}
	case Watermark:
		return []Fault{
			{Kind: Mute, Who: To(owner, Notifiers), At: at, For: 2000 * ms},
			{Kind: Kill, Who: owner, At: at + jitter(1000*ms), For: 500 * ms},
		}
	case Intent:
		// What steady is told keeps the journal's shards busy with a write that gets no
		// answer when moody is back, who waits for news. Then a few alerts more are
		// stored, and nothing changes any more: the next notifier that leads has the
		// same to tell, at a later sequence.
		mute, kill := at+jitter(1600*ms), at+2200*ms+jitter(300*ms)
		return []Fault{
			{Kind: Late, Who: Steady, At: at, For: 2200 * ms},
			{Kind: Hang, Who: Moody, At: at, For: 2200 * ms},
			{Kind: Hang, Who: Grouped, At: at, For: 2200 * ms},
			{Kind: Mute, Who: To(Notifier1, NATS), At: mute, For: 1500 * ms},
			{Kind: Mute, Who: To(Notifier2, NATS), At: mute, For: 1500 * ms},
			{Kind: Stall, Who: To(Collector, RunPod), At: mute + 300*ms, For: 3500 * ms},
			{Kind: Kill, Who: Notifier1, At: kill, For: 400 * ms},
			{Kind: Kill, Who: Notifier2, At: kill, For: 400 * ms},
		}
	case Log:
		return []Fault{{Kind: Wipe, Who: NATS, Part: Events, At: at, For: jitter(500 * ms)}}
	case Clocks:
		by := between(r, leastOffset, mostOffset)
		return []Fault{
			{Kind: Clock, Who: Notifier1, Offset: -by, At: at, For: jitter(5000 * ms)},
			{Kind: Clock, Who: Notifier2, Offset: by, At: at, For: jitter(5000 * ms)},
			{Kind: Cut, Who: To(Notifiers, Moody), At: at, For: jitter(3000 * ms)},
		}
	}
	return nil
}

// Play returns a plan that plays one scene again and again, and nothing else.
func Play(seed uint64, s Scene) Plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := begin(r, seed)
	p.Scene = s
	if s == Log { // once is enough to lose, and something must be there
		p.Faults = s.draw(r, between(r, leastLossy, Length-mostGap))
		return p
	}
	for at := between(r, 500*ms, time.Second); at+sceneTime <= Length; at += sceneTime {
		p.Faults = append(p.Faults, s.draw(r, at)...)
	}
	p.Faults = sorted(p.Faults)
	return p
}
