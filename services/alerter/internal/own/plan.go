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
	// Overdue are partitions that nobody owned for long: whoever has room for
	// them cannot run them, so that others claim them above their share.
	Overdue map[int]bool
	// Rescued are partitions that Self claimed for that reason.
	Rescued map[int]bool
}

// Plan decides which partitions a replica claims and which it releases, so
// that all end with as many as any other, or one more. It claims only what
// nobody owns, and releases only what is above its share, what it rescued last,
// so that two replicas that see different things disagree for a moment but never
// fight.
func Plan(v View) (claim, release []int) {
	var mine, rescued, free, overdue []int
	for p := range v.Partitions {
		switch owner, owned := v.Owners[p]; {
		case owner == v.Self && v.Rescued[p]:
			rescued = append(rescued, p)
		case owner == v.Self && owned:
			mine = append(mine, p)
		case !owned && !v.Barred[p] && v.Overdue[p]:
			overdue = append(overdue, p)
		case !owned && !v.Barred[p]:
			free = append(free, p)
		}
	}
	quota := share(v)
	if mine = append(rescued, mine...); len(mine) >= quota {
		return overdue, mine[quota:]
	}
	// Replicas that start together begin at different places, so that they
	// seldom want the same partition.
	slices.SortFunc(free, func(a, b int) int {
		return offset(v.Self, a, v.Partitions) - offset(v.Self, b, v.Partitions)
	})
	room := max(quota-len(mine)-len(overdue), 0)
	return append(overdue, free[:min(len(free), room)]...), nil
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
