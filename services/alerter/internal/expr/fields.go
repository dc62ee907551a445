package expr

import (
	"slices"

	"github.com/tocsin-dev/tocsin/services/alerter/rulefile"
)

// Kind says what the values of a field are.
type Kind int

// The kinds of fields.
const (
	// Gauge is a number that rises and falls.
	Gauge Kind = iota + 1
	// Counter is a number that only rises; where it falls it began anew.
	Counter
	// Text is a text.
	Text
	// Truth is true or false.
	Truth
)

// FieldID names a field in code.
type FieldID int

// The fields that expressions can name.
const (
	JobsCompleted FieldID = iota
	JobsFailed
	JobsRetried
	JobsInProgress
	JobsInQueue
	WorkersIdle
	WorkersReady
	WorkersRunning
	WorkersInitializing
	WorkersThrottled
	WorkersUnhealthy
	WorkersMax
	WorkersMin
	EndpointType
	EndpointExecutionTimeout
	EndpointIdleTimeout
	TrackedOldestQueued
	TrackedDelayP95
	TrackedDelays
	TrackedOverrun
	TrackedLost
	TrackedInvalid
	TrackedOpen
	PollFailing
	JobCategory
	JobFailed
	JobFingerprintNew
	PodStatus
	PodCostPerHour
	PodUptime
	PodRestarts
	PodGone
	CPUUtil
	MemoryUtil
	GPUUtil
	GPUUtilMax
	GPUMemory
	GPUCount
	GPUExpected
	PollsOK
	PollsFailed
	PollsUnauthorized
	PollsForbidden
	PollsNotFound
	PollsRateLimited
	PollsServerError
	PollsTimeout
	PollsNetwork
	PollsMalformed
	TargetsKnown
	TargetsFailing
	InventoryKnown
	InventoryVanished
	InventoryShrunk
	ClockSkew

	// FieldCount is how many fields there are.
	FieldCount
)

// Field is one entry of the table of what expressions can name.
type Field struct {
	// ID names the field in code.
	ID FieldID
	// Name as expressions write it.
	Name string
	// On lists the rules that can use it.
	On []rulefile.On
	// Kind says what its values are.
	Kind Kind
	// Values lists all texts that it can have, if they are known.
	Values []string
	// Unit of its values, empty for texts and truth values.
	Unit string
	// Meaning in a sentence.
	Meaning string
}

var (
	endpoints = []rulefile.On{rulefile.OnEndpoint, rulefile.OnJob}
	jobs      = []rulefile.On{rulefile.OnJob}
	pods      = []rulefile.On{rulefile.OnPod}
	polls     = []rulefile.On{rulefile.OnEndpoint, rulefile.OnJob, rulefile.OnPod}
	accounts  = []rulefile.On{rulefile.OnAccount}
)

// table is the one place where fields are described: the environments of
// expressions, messages and references are made of it.
var table = [FieldCount]Field{
	JobsCompleted:            {Name: "jobs.completed", On: endpoints, Kind: Counter, Unit: "jobs", Meaning: "Jobs completed since the endpoint was made."},
	JobsFailed:               {Name: "jobs.failed", On: endpoints, Kind: Counter, Unit: "jobs", Meaning: "Jobs failed since the endpoint was made."},
	JobsRetried:              {Name: "jobs.retried", On: endpoints, Kind: Counter, Unit: "jobs", Meaning: "Jobs retried since the endpoint was made."},
	JobsInProgress:           {Name: "jobs.in_progress", On: endpoints, Kind: Gauge, Unit: "jobs", Meaning: "Jobs running now."},
	JobsInQueue:              {Name: "jobs.in_queue", On: endpoints, Kind: Gauge, Unit: "jobs", Meaning: "Jobs waiting now."},
	WorkersIdle:              {Name: "workers.idle", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Workers without a job."},
	WorkersReady:             {Name: "workers.ready", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Workers able to take a job; overlaps with workers.idle."},
	WorkersRunning:           {Name: "workers.running", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Workers with a job."},
	WorkersInitializing:      {Name: "workers.initializing", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Workers that are starting."},
	WorkersThrottled:         {Name: "workers.throttled", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Workers that wait for host capacity."},
	WorkersUnhealthy:         {Name: "workers.unhealthy", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Workers that crashed or failed their checks."},
	WorkersMax:               {Name: "workers.max", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Most workers that the endpoint may have; 0 means that no job can run."},
	WorkersMin:               {Name: "workers.min", On: endpoints, Kind: Gauge, Unit: "workers", Meaning: "Least number of workers."},
	EndpointType:             {Name: "endpoint.type", On: endpoints, Kind: Text, Values: []string{"queue", "load_balancer"}, Meaning: "How it takes work: 'queue' or 'load_balancer'."},
	EndpointExecutionTimeout: {Name: "endpoint.execution_timeout_s", On: endpoints, Kind: Gauge, Unit: "seconds", Meaning: "Longest execution of a job; no value when not set."},
	EndpointIdleTimeout:      {Name: "endpoint.idle_timeout_s", On: endpoints, Kind: Gauge, Unit: "seconds", Meaning: "Time without work after which a worker stops."},
	TrackedOldestQueued:      {Name: "tracked.oldest_queued_s", On: endpoints, Kind: Gauge, Unit: "seconds", Meaning: "Age of the followed job that waits longest; 0 when none waits."},
	TrackedDelayP95:          {Name: "tracked.delay_p95_s", On: endpoints, Kind: Gauge, Unit: "seconds", Meaning: "95th percentile of the waits of the last followed jobs (up to 64, of the last 2 h, at least 5)."},
	TrackedDelays:            {Name: "tracked.delays", On: endpoints, Kind: Gauge, Unit: "jobs", Meaning: "Followed jobs whose waits tracked.delay_p95_s is of, up to 64."},
	TrackedOverrun:           {Name: "tracked.overrun", On: endpoints, Kind: Gauge, Unit: "jobs", Meaning: "Followed jobs in progress for longer than the execution timeout and a minute."},
	TrackedLost:              {Name: "tracked.lost", On: endpoints, Kind: Counter, Unit: "jobs", Meaning: "Followed jobs that RunPod forgot although they did not end."},
	TrackedInvalid:           {Name: "tracked.invalid", On: endpoints, Kind: Counter, Unit: "jobs", Meaning: "Followed jobs whose input was refused: failures of the category validation."},
	TrackedOpen:              {Name: "tracked.open", On: endpoints, Kind: Gauge, Unit: "jobs", Meaning: "Followed jobs that have not ended."},
	PollFailing:              {Name: "poll.failing", On: polls, Kind: Truth, Meaning: "True when the last poll of the target gave nothing that can be used."},
	JobCategory:              {Name: "job.category", On: jobs, Kind: Text, Values: []string{"validation", "timeout", "oom", "crash", "handler", "unknown"}, Meaning: "The group of failures that is judged: validation, timeout, oom, crash, handler or unknown."},
	JobFailed:                {Name: "job.failed", On: jobs, Kind: Counter, Unit: "jobs", Meaning: "Followed jobs that failed with this category."},
	JobFingerprintNew:        {Name: "job.fingerprint_new", On: jobs, Kind: Truth, Meaning: "True for 10 minutes after a failure whose type and place were not met in the 48 hours before."},
	PodStatus:                {Name: "pod.status", On: pods, Kind: Text, Values: []string{"PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"}, Meaning: "RunPod's status: PROVISIONING, STARTING, RUNNING, EXITED, ERROR or TERMINATED."},
	PodCostPerHour:           {Name: "pod.cost_per_hour", On: pods, Kind: Gauge, Unit: "US dollars per hour", Meaning: "What the pod costs now."},
	PodUptime:                {Name: "pod.uptime_s", On: pods, Kind: Gauge, Unit: "seconds", Meaning: "Time since the pod's container started; no value unless it runs."},
	PodRestarts:              {Name: "pod.restarts", On: pods, Kind: Counter, Unit: "restarts", Meaning: "How often the uptime fell."},
	PodGone:                  {Name: "pod.gone", On: pods, Kind: Truth, Meaning: "True when RunPod no longer lists the pod."},
	CPUUtil:                  {Name: "cpu.util_percent", On: pods, Kind: Gauge, Unit: "percent", Meaning: "Use of the processors."},
	MemoryUtil:               {Name: "memory.util_percent", On: pods, Kind: Gauge, Unit: "percent", Meaning: "Use of memory."},
	GPUUtil:                  {Name: "gpu.util_percent", On: pods, Kind: Gauge, Unit: "percent", Meaning: "Mean use of the pod's GPUs that tell theirs."},
	GPUUtilMax:               {Name: "gpu.util_max", On: pods, Kind: Gauge, Unit: "percent", Meaning: "Use of the busiest GPU."},
	GPUMemory:                {Name: "gpu.memory_percent", On: pods, Kind: Gauge, Unit: "percent", Meaning: "Use of the fullest GPU memory."},
	GPUCount:                 {Name: "gpu.count", On: pods, Kind: Gauge, Unit: "GPUs", Meaning: "GPUs that the pod reports; 0 when a running pod reports none, no value unless it runs."},
	GPUExpected:              {Name: "gpu.expected", On: pods, Kind: Gauge, Unit: "GPUs", Meaning: "GPUs that the pod was made with."},
	PollsOK:                  {Name: "polls.ok", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls that succeeded in the last round."},
	PollsFailed:              {Name: "polls.failed", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls that failed in the last round."},
	PollsUnauthorized:        {Name: "polls.unauthorized", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls answered 401: the key is wrong or revoked."},
	PollsForbidden:           {Name: "polls.forbidden", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls answered 403: the key lacks a scope."},
	PollsNotFound:            {Name: "polls.not_found", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls answered 404."},
	PollsRateLimited:         {Name: "polls.rate_limited", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls answered 429."},
	PollsServerError:         {Name: "polls.server_error", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls answered 5xx."},
	PollsTimeout:             {Name: "polls.timeout", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls without a whole answer in time."},
	PollsNetwork:             {Name: "polls.network", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls whose connection failed."},
	PollsMalformed:           {Name: "polls.malformed", On: accounts, Kind: Gauge, Unit: "polls", Meaning: "Polls whose answer is not what the API promises."},
	TargetsKnown:             {Name: "targets.known", On: accounts, Kind: Gauge, Unit: "targets", Meaning: "Targets that the collector polls."},
	TargetsFailing:           {Name: "targets.failing", On: accounts, Kind: Gauge, Unit: "targets", Meaning: "Targets whose last poll failed."},
	InventoryKnown:           {Name: "inventory.known", On: accounts, Kind: Gauge, Unit: "targets", Meaning: "Targets known before the inventory shrank."},
	InventoryVanished:        {Name: "inventory.vanished", On: accounts, Kind: Gauge, Unit: "targets", Meaning: "Targets that vanished at once."},
	InventoryShrunk:          {Name: "inventory.shrunk", On: accounts, Kind: Truth, Meaning: "True while too large a part of the inventory is missing."},
	ClockSkew:                {Name: "clock.skew_s", On: accounts, Kind: Gauge, Unit: "seconds", Meaning: "The collector's clock minus the bus's."},
}

// byName finds fields by their name.
var byName = func() map[string]FieldID {
	m := make(map[string]FieldID, FieldCount)
	for i := range table {
		table[i].ID = FieldID(i)
		m[table[i].Name] = FieldID(i)
	}
	return m
}()

// FieldOf returns the table's entry of a field.
func FieldOf(id FieldID) Field { return table[id] }

// Fields lists what rules on something can name, in the table's order.
func Fields(on rulefile.On) []Field {
	var all []Field
	for _, f := range table {
		if slices.Contains(f.On, on) {
			all = append(all, f)
		}
	}
	return all
}

func fieldNames(on rulefile.On) []string {
	var names []string
	for _, f := range Fields(on) {
		names = append(names, f.Name)
	}
	return names
}

// FieldByName finds a field by its name.
func FieldByName(name string) (FieldID, bool) {
	id, ok := byName[name]
	return id, ok
}
