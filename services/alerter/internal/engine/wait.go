package engine

// An alert that waits (for its `for`, or for its keep_firing_for) waits only
// while its conditions are known. Where they are not, the wait stands still:
// because what polls brought does not hold any more (lapse), because nobody
// could publish anything (suspend), or because silence means nothing yet after
// that or after a start of the collector.

// missing returns since when what a rule judges a target by is missing, if it is
// at the instant at: since the last sample ceased to hold, or since now.
func (p *Partition) missing(t *target, c *compiled, at int64) int64 {
	if !c.readsSamples || t.sampled == never {
		return at
	}
	return min(at, p.clock.engineAt(t.holds())+1)
}

// lapse stops the waits on a target whose last sample ceased to hold before the
// one at hand.
func (p *Partition) lapse(t *target) {
	for _, a := range t.alerts {
		if a.rule.readsSamples {
			p.freeze(a, p.missing(t, a.rule, p.nowMs()))
		}
	}
	p.lose(t, false)
}

// suspend stops all waits before a gap in time.
func (p *Partition) suspend() {
	if p.program == nil {
		return
	}
	for _, a := range p.byID {
		p.freeze(a, p.missing(a.target, a.rule, p.nowMs()))
	}
	for _, t := range p.targets {
		p.lose(t, true)
	}
}

// resume lets go on after a gap what does not depend on samples.
func (p *Partition) resume() {
	p.reconsider(func(a *alert) bool { return a.state.Frozen || a.hold != nil && a.hold.calm.Frozen })
}

// reconsider judges those alerts now that a condition picks.
func (p *Partition) reconsider(which func(*alert) bool) {
	if p.program == nil {
		return
	}
	for _, id := range sortedKeys(p.byID) {
		if a := p.byID[id]; a != nil && which(a) {
			p.evaluate(a.target, a.rule, a.target.category(a.category), p.nowMs())
		}
	}
}

// freeze stops an alert's wait, if it waits, as of an instant.
func (p *Partition) freeze(a *alert, at int64) {
	next := a.state.Freeze(at)
	if a.hold != nil && !a.hold.calm.Frozen {
		a.hold.calm = a.hold.calm.Freeze(at)
	} else if next == a.state {
		return
	}
	a.state = next
	p.touchAlert(a)
	p.schedule(a.timer, p.nowMs())
}
