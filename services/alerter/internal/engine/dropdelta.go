package engine

// DropDelta forgets what changed since the last Delta, for who keeps a state in
// memory only: what has changed is noted until somebody asks.
func (p *Partition) DropDelta() {
	for key := range p.dirty.targets {
		if t := p.targets[key]; t != nil {
			t.touched = false
		}
	}
	clear(p.dirty.targets)
	clear(p.dirty.alerts)
}

// TargetCount returns how many targets the partition knows, those that were removed
// within a day too.
func (p *Partition) TargetCount() int { return len(p.targets) }
