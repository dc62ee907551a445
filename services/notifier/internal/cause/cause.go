// Package cause orders the causes of alert transitions.
package cause

import (
	"cmp"

	alertv1 "github.com/tocsin-dev/tocsin/proto/gen/tocsin/alert/v1"
)

// Compare orders causes by log, sequence and index. An absent cause comes first.
func Compare(a, b *alertv1.Cause) int {
	return cmp.Or(
		cmp.Compare(a.GetLogId(), b.GetLogId()),
		cmp.Compare(a.GetSequence(), b.GetSequence()),
		cmp.Compare(a.GetIndex(), b.GetIndex()),
	)
}
