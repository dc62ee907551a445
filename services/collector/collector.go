// Package collector watches a RunPod account and writes what it sees to the
// event log: every fact once, in order per target. It polls RunPod's inventory,
// the health of each queue endpoint, the pods and the jobs that it was told of,
// takes RunPod's completion webhooks, and never sends anything but reads to
// RunPod. It keeps running, and says so, while RunPod or NATS are away.
package collector

import "context"

// Run watches the account until ctx ends, which is no error. It returns an error
// when opts are wrong, a port is taken, the event log has other settings than
// expected, or RunPod refuses the key of an account that was never seen before.
func Run(ctx context.Context, opts Options) error {
	return run(ctx, opts)
}
