// Package engine is the alerter's heart: a pure fold over the event log. Step
// takes a message and the state before it, and gives the state after it and
// the alerts that changed. It reads no clock, no store and no randomness, and
// the order of Go's maps changes nothing, so that live evaluation, a replay
// after a loss and a test of a rule are the same call and give the same
// answer, alert ids included.
package engine

import (
	"fmt"
	"time"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
	eventv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/event/v1"
)

// Message is one message of the event log.
type Message struct {
	// Seq is its sequence in the stream.
	Seq uint64
	// Time is its timestamp by the bus's clock.
	Time time.Time
	// Event is its content. Nil means that it could not be decoded: it is
	// counted and skipped.
	Event *eventv1.Event
}

// Programs finds the compiled rule set with a hash, or nil if it is not loaded.
type Programs = func(hash string) *Program

// StepResult is what one message changed.
type StepResult struct {
	// Transitions that people may be told of, in the order of their causes.
	Transitions []*alertv1.Transition
	// Changes are all alerts that changed, pending ones too. A pending alert
	// that vanished is resolved and has no fired_at.
	Changes []*alertv1.Alert
	// Problems are what went wrong and was skipped.
	Problems []Problem
}

// ProblemKind says what went wrong.
type ProblemKind string

// The kinds of problems.
const (
	// UndecodableEvent is a message without a fact that can be read.
	UndecodableEvent ProblemKind = "undecodable_event"
	// RuleFailed is a rule whose evaluation failed; its state is as it was.
	RuleFailed ProblemKind = "rule_failed"
	// TemplateFailed is an annotation that could not be rendered.
	TemplateFailed ProblemKind = "template_failed"
	// DuplicateAlert is an alert with the labels of another rule's alert; it is
	// left out.
	DuplicateAlert ProblemKind = "duplicate_alert"
	// TooManyTargets is a fact about a target over the bound; it is left out.
	TooManyTargets ProblemKind = "too_many_targets"
	// TooManyAlerts is an alert over its rule's bound; it is left out.
	TooManyAlerts ProblemKind = "too_many_alerts"
	// TooManyJobs is a job that was forgotten because an endpoint has too many.
	TooManyJobs ProblemKind = "too_many_jobs"
	// TooManyPoints is a window whose oldest points were dropped.
	TooManyPoints ProblemKind = "too_many_points"
)

// Problem is something that went wrong and was skipped, for counting and for
// the log.
type Problem struct {
	// Kind says what went wrong.
	Kind ProblemKind
	// Rule is the key of the rule, if it is about one.
	Rule string
	// Target is the token of the target, if it is about one.
	Target string
	// Detail is a sentence for people.
	Detail string
}

// UnknownRulesError says that a rule set must be loaded before a message can be
// applied. The state is untouched.
type UnknownRulesError struct {
	// Hash names the rule set.
	Hash string
}

// Error names the rule set.
func (e UnknownRulesError) Error() string { return fmt.Sprintf("rule set %s is not loaded", e.Hash) }

// Delta is what changed since the last Delta, encoded for the store.
type Delta struct {
	// Head is the encoded statev1.Head.
	Head []byte
	// Targets are the values that changed, by key; nil deletes. See IsTarget.
	Targets map[string][]byte
	// Active are the pending and firing alerts that changed, by id; nil deletes.
	Active map[string][]byte
}
