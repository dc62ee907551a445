package diagnosis

import (
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// round is how much of an account's polls is looked at: a single round of 15 s may
// hold no poll at all.
const round = 2 * time.Minute

// lately is the greatest value of a field in the last round, or the latest one where
// its course is not kept.
func (p *patient) lately(name string) (float64, bool) {
	now, known := p.number(name)
	if _, most, seen := p.course(name, round); seen > 0 {
		return max(now, most), true
	}
	return now, known
}

// keyIsRejected looks for a key that RunPod does not take.
func keyIsRejected(p *patient) *alertv1.Diagnosis {
	rejected, _ := p.lately("polls.unauthorized")
	ok, known := p.lately("polls.ok")
	if rejected == 0 || !known || ok > 0 {
		return nil
	}
	return p.found(keyRejected, sure, "RunPod rejects the API key (401) and no poll works: the key is wrong or revoked.").
		fact("polls.unauthorized", "polls.ok", "polls.failed").
		do("Make a new read-only key in RunPod's console and give it to the collector.").done()
}

// scopeIsMissing looks for a key that may not read all that is asked for.
func scopeIsMissing(p *patient) *alertv1.Diagnosis {
	refused, _ := p.lately("polls.forbidden")
	if refused == 0 {
		return nil
	}
	return p.found(scopeMissing, sure, "The API key is good and lacks a permission (403): what it may not read is not watched.").
		fact("polls.forbidden", "polls.ok").
		do("Give the key read access to serverless endpoints and pods in RunPod's console.").done()
}

// apiIsDown looks for an API that does not answer.
func apiIsDown(p *patient) *alertv1.Diagnosis {
	failing, _ := p.number("targets.failing")
	known, _ := p.number("targets.known")
	broken := 0.0
	for _, name := range []string{"polls.server_error", "polls.timeout", "polls.network", "polls.malformed"} {
		n, _ := p.lately(name)
		broken += n
	}
	if broken == 0 || failing <= known/2 {
		return nil
	}
	return p.found(runpodDown, likely, "RunPod's API cannot be used: %s of %s cannot be polled.", text(failing), count(known, "target")).
		fact("targets.failing", "targets.known", "polls.server_error", "polls.timeout", "polls.network", "polls.malformed", "polls.ok").
		do("See https://uptime.runpod.io.", "Where all is well there, look at the network between here and RunPod.").done()
}

// tooManyPolls looks for a budget of requests that is spent.
func tooManyPolls(p *patient) *alertv1.Diagnosis {
	refused, _ := p.lately("polls.rate_limited")
	if refused == 0 {
		return nil
	}
	return p.found(rateLimited, likely, "RunPod refuses polls because there are too many (429): the limit counts all keys and tools of the user.").
		fact("polls.rate_limited", "polls.ok").
		do("Find what else asks RunPod for much, or poll more rarely.").done()
}

// vanished looks for an inventory that lost much at once.
func vanished(p *patient) *alertv1.Diagnosis {
	if p.Texts["inventory.shrunk"] != "true" {
		return nil
	}
	return p.found(shrunk, likely, "A large part of the inventory is gone at once: deleted, or a key that sees less than before.").
		fact("inventory.known", "inventory.vanished").
		do("See in RunPod's console whether the targets are there; if so, look at the key's permissions.").done()
}
