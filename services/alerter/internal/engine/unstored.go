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

// ConditionCount returns how many courses of conditions the partition may have, those
// that count_true asks for: each once for every target that it knows and, where it is
// about failed jobs, for every category of them. Unlike the fields, of which there is
// a fixed list, rules may ask for any number.
func (p *Partition) ConditionCount() int {
	if p.program == nil {
		return 0
	}
	n := 0
	for kind, targets := range p.kinds {
		n += targets * p.program.conditions[kind]
	}
	return n
}
