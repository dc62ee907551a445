package fault

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// domain is the ErrorInfo domain of our reasons, so that they cannot be taken
// for those of a proxy between caller and server.
const domain = "tocsin.dev"

// kindKey is the key of the ErrorInfo's metadata under which the kind travels,
// since several kinds share a code and a reason may say more than the kind.
const kindKey = "kind"

// GRPC translates err to a gRPC status with an ErrorInfo detail that carries the
// reason, and a RetryInfo when a wait is known. A status that err already
// carries without a kind of ours is passed on as it is. The status of nil is OK.
func GRPC(err error) *status.Status {
	if err == nil {
		return status.New(codes.OK, "")
	}
	if _, ours := errors.AsType[*Error](err); !ours {
		if s, ok := status.FromError(err); ok {
			return s
		}
	}
	s := status.New(Of(err).Code(), visible(err))
	detailed, detailErr := s.WithDetails(&errdetails.ErrorInfo{
		Reason: reasonOf(err), Domain: domain, Metadata: map[string]string{kindKey: Of(err).Reason()},
	})
	if detailErr != nil {
		return s
	}
	if wait := retryAfter(err); wait > 0 {
		if more, moreErr := detailed.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}); moreErr == nil {
			detailed = more
		}
	}
	return detailed
}

// FromGRPC gives an error that a gRPC call returned its kind, reason and wait
// back, so that errors.Is(err, fault.NotFound) holds on both sides of the wire.
// The status stays in the chain. Errors that are no status are returned as
// they are.
func FromGRPC(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	fault := &Error{Kind: kindOfCode(s.Code()), Err: err}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != domain {
				continue
			}
			fault.Reason = d.GetReason()
			for k := range Kind(len(kinds)) {
				if k.Reason() == d.GetMetadata()[kindKey] && k.Code() == s.Code() {
					fault.Kind = k
				}
			}
		case *errdetails.RetryInfo:
			fault.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return fault
}

// kindOfCode returns the kind for a code that came without a reason of ours.
func kindOfCode(code codes.Code) Kind {
	switch code {
	case codes.ResourceExhausted:
		return Exhausted
	case codes.InvalidArgument, codes.OutOfRange:
		return Invalid
	case codes.AlreadyExists:
		return Conflict
	}
	for k := range Kind(len(kinds)) {
		if k.Code() == code {
			return k
		}
	}
	return Internal
}
