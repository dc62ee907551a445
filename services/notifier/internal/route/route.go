// Package route decides who hears of an alert: which receivers its labels lead
// to, in which group, and whether another alert inhibits it.
//
// Routes and inhibition mean what they mean in Alertmanager, whose own route
// tree is used. The package is pure: it reads no clock, store or network.
package route

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/common/model"
)

// Lane is what is delivered in order: one integration of a receiver and one
// group of alerts.
type Lane struct {
	// Receiver is the receiver's name.
	Receiver string
	// Integration names one way to reach the receiver, e.g. "webhook/3f2a90c1".
	Integration string
	// GroupKey is the group's key as Alertmanager writes it.
	GroupKey string
}

// Integration is one way to reach a receiver.
type Integration struct {
	// Name is unique within the receiver, e.g. "webhook/3f2a90c1".
	Name string
	// SendResolved says whether it wants to hear that alerts are over.
	SendResolved bool
	// MaxAlerts bounds the alerts in one message; the rest is only counted, as
	// Alertmanager does. 0 means no bound.
	MaxAlerts int
}

// Timing is when a group is told.
type Timing struct {
	// GroupWait is how long the first message waits for more alerts.
	GroupWait time.Duration
	// GroupInterval is the time between two messages about changes.
	GroupInterval time.Duration
	// RepeatInterval is the time after which an unchanged group is told again.
	RepeatInterval time.Duration
}

// Destination is a lane that an alert belongs to.
type Destination struct {
	// Lane is the lane.
	Lane Lane
	// GroupLabels are the labels that define the group.
	GroupLabels map[string]string
	// RouteLabels are the labels of the route.
	RouteLabels map[string]string
	// Timing is the route's.
	Timing Timing
}

// Table is the route tree together with the integrations of each receiver. It
// is immutable.
type Table struct {
	root      *dispatch.Route
	receivers map[string][]Integration
}

// NewTable returns the table of a route tree that was read by Alertmanager's own
// package. A receiver that is not in receivers, or has no integrations, swallows
// its alerts.
func NewTable(root *config.Route, receivers map[string][]Integration) *Table {
	return &Table{root: dispatch.NewRoute(root, nil), receivers: receivers}
}

// Destinations returns the lanes of an alert with the given labels, in the order
// of the tree, each once.
func (t *Table) Destinations(labels map[string]string) []Destination {
	set := labelSet(labels)
	var (
		found []Destination
		seen  = map[Lane]bool{}
	)
	for _, r := range t.root.Match(set) {
		group := groupLabels(set, r)
		key := fmt.Sprintf("%s:%s", r.Key(), group)
		for _, in := range t.receivers[r.RouteOpts.Receiver] {
			lane := Lane{Receiver: r.RouteOpts.Receiver, Integration: in.Name, GroupKey: key}
			if seen[lane] {
				continue
			}
			seen[lane] = true
			found = append(found, Destination{
				Lane:        lane,
				GroupLabels: plain(group),
				RouteLabels: plain(r.RouteOpts.Labels),
				Timing: Timing{
					GroupWait:      r.RouteOpts.GroupWait,
					GroupInterval:  r.RouteOpts.GroupInterval,
					RepeatInterval: r.RouteOpts.RepeatInterval,
				},
			})
		}
	}
	return found
}

// Integration returns the integration of a lane, and false when it is not
// configured (any more).
func (t *Table) Integration(l Lane) (Integration, bool) {
	for _, in := range t.receivers[l.Receiver] {
		if in.Name == l.Integration {
			return in, true
		}
	}
	return Integration{}, false
}

// Way is one integration of one receiver.
type Way struct {
	// Receiver is the receiver's name.
	Receiver string
	// Integration is the integration's name.
	Integration string
}

// Ways returns all integrations, by the receivers' names and within a receiver in
// the order of its file.
func (t *Table) Ways() []Way {
	var all []Way
	for _, receiver := range slices.Sorted(maps.Keys(t.receivers)) {
		for _, in := range t.receivers[receiver] {
			all = append(all, Way{Receiver: receiver, Integration: in.Name})
		}
	}
	return all
}

func groupLabels(set model.LabelSet, r *dispatch.Route) model.LabelSet {
	if r.RouteOpts.GroupByAll {
		return maps.Clone(set)
	}
	group := model.LabelSet{}
	for name := range r.RouteOpts.GroupBy {
		if value, ok := set[name]; ok {
			group[name] = value
		}
	}
	return group
}

// labelSet leaves out empty values, which mean "no such label" to matchers.
func labelSet(labels map[string]string) model.LabelSet {
	set := make(model.LabelSet, len(labels))
	for name, value := range labels {
		if value != "" {
			set[model.LabelName(name)] = model.LabelValue(value)
		}
	}
	return set
}

func plain(set model.LabelSet) map[string]string {
	labels := make(map[string]string, len(set))
	for name, value := range set {
		labels[string(name)] = string(value)
	}
	return labels
}
