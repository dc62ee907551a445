package engine

import "github.com/tocsin-dev/tocsin/services/alerter/internal/expr"

// burnRate returns how many times faster than allowed what is bad used up a budget:
// 1 is as fast as the objective allows. Where nothing happened, nothing is used up.
// What nobody can date of the counters is slack, in the direction that is worst.
func (c *cache) burnRate(s *expr.Slot) expr.Value {
	objective := s.Default
	if s.Burn.Objective >= 0 {
		objective = c.Slot(s.Burn.Objective).Number
	}
	bad, okBad := c.sum(s.Burn.Bad)
	all, okAll := c.sum(s.Burn.All)
	// An override may be anything; one that allows nothing or everything is none.
	if !okBad || !okAll || !(objective > 0 && objective < 1) {
		return expr.Value{}
	}
	budget := 1 - objective
	least := part(bad.Number, all.Number+all.Slack) / budget
	greatest := part(bad.Number+bad.Slack, all.Number) / budget
	return expr.Value{Kind: expr.Gauge, Number: least, Slack: max(greatest-least, 0)}
}

// part returns one number as a part of another, all of it where there is no other.
func part(of, all float64) float64 {
	switch {
	case of <= 0:
		return 0
	case all <= 0:
		return 1
	default:
		return of / all
	}
}

// sum adds up the values of slots, and returns false where one has none.
func (c *cache) sum(slots []int) (expr.Value, bool) {
	sum := expr.Num(0)
	for _, id := range slots {
		v := c.Slot(id)
		if !v.Known() {
			return expr.Value{}, false
		}
		sum.Number += v.Number
		sum.Slack += v.Slack
	}
	return sum, true
}
