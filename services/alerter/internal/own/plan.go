package own

import (
	"hash/fnv"
	"slices"
)

// View is what a replica sees of all replicas at one instant.
type View struct {
	// Self is the replica's own name.
	Self string
	// Replicas are the names of those that are alive. Self counts even when it
	// is missing.
	Replicas []string
	// Partitions is how many partitions there are, numbered from 0.
	Partitions int
	// Owners are the owners of the partitions that have one.
	Owners map[int]string
	// Barred are partitions that Self must not claim now.
	Barred map[int]bool
}

// Plan decides which partitions a replica claims and which it releases, so
// that all end with as many as any other, or one more. It claims only what
// nobody owns, and releases only what is above its share, so that two replicas
// that see different things disagree for a moment but never fight.
func Plan(v View) (claim, release []int) {
	var mine, free []int
	for p := range v.Partitions {
		switch owner, owned := v.Owners[p]; {
		case owner == v.Self && owned:
			mine = append(mine, p)
		case !owned && !v.Barred[p]:
			free = append(free, p)
		}
	}
	quota := share(v)
	if len(mine) >= quota {
		return nil, mine[quota:]
	}
	// Replicas that start together begin at different places, so that they
	// seldom want the same partition.
	slices.SortFunc(free, func(a, b int) int {
		return offset(v.Self, a, v.Partitions) - offset(v.Self, b, v.Partitions)
	})
	return free[:min(len(free), quota-len(mine))], nil
}

// share is how many partitions Self should own: the first replicas by name own
// one more than the others when they cannot all own the same number.
func share(v View) int {
	names := append(slices.Clone(v.Replicas), v.Self)
	slices.Sort(names)
	names = slices.Compact(names)
	quota := v.Partitions / len(names)
	if slices.Index(names, v.Self) < v.Partitions%len(names) {
		quota++
	}
	return quota
}

// offset is the distance of a partition from where self begins.
func offset(self string, partition, partitions int) int {
	h := fnv.New32a()
	h.Write([]byte(self))
	start := int(h.Sum32() % uint32(partitions))
	return (partition - start + partitions) % partitions
}
