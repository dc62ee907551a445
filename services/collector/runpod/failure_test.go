package runpod

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// inString is raw JSON inside of a JSON string, as the handler library sends it.
func inString(t testing.TB, v any) string {
	t.Helper()
	inner, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := json.Marshal(string(inner))
	if err != nil {
		t.Fatal(err)
	}
	return string(outer)
}

const traceback = `Traceback (most recent call last):
  File "/usr/lib/python3/site-packages/runpod/serverless/modules/rp_job.py", line 182, in run_job
    handler_return = handler(job)
  File "/app/handler.py", line 42, in predict
    raise ValueError("password=hunter2")
`

func TestParseFailure(t *testing.T) {
	t.Parallel()
	raised := func(kind, message string) string {
		return inString(t, map[string]string{
			"error_type": kind, "error_message": message, "error_traceback": traceback,
			"hostname": "h", "worker_id": "w", "runpod_version": "1.12.0",
		})
	}
	const frame = "/app/handler.py:42 in predict"
	for name, test := range map[string]struct {
		status, raw string
		want        Failure
	}{
		"no error at all":       {"FAILED", ``, Failure{Category: Unknown}},
		"null":                  {"FAILED", `null`, Failure{Category: Unknown}},
		"text that says it all": {"FAILED", `"it broke"`, Failure{Category: Unknown, Message: "it broke"}},
		"the timeout that RunPod reports as a failure": {
			"FAILED", `"executionTimeout exceeded"`, Failure{Category: TimedOut, Message: "executionTimeout exceeded"},
		},
		"the state alone":           {"TIMED_OUT", `"job timed out after 2 retries"`, Failure{Category: TimedOut, Message: "job timed out after 2 retries"}},
		"a worker that died":        {"FAILED", `"job timed out after 3 retries"`, Failure{Category: Crash, Message: "job timed out after 3 retries"}},
		"a worker with exit code 1": {"FAILED", `"worker exited with exit code 1"`, Failure{Category: Crash, Message: "worker exited with exit code 1"}},
		"a worker killed for memory": {
			"FAILED", `"worker exited with exit code 137"`, Failure{Category: OutOfMemory, Message: "worker exited with exit code 137"},
		},
		"a GPU out of memory": {"FAILED", raised("<class 'torch.cuda.OutOfMemoryError'>", "CUDA out of memory. Tried to allocate 2.50 GiB"), Failure{
			Category: OutOfMemory, Type: "torch.cuda.OutOfMemoryError", Message: "CUDA out of memory. Tried to allocate 2.50 GiB", Frame: frame,
		}},
		"a GPU out of memory, by another name": {"FAILED", `"hipErrorOutOfMemory"`, Failure{Category: OutOfMemory, Message: "hipErrorOutOfMemory"}},
		"cuBLAS without room":                  {"FAILED", `"CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"`, Failure{Category: OutOfMemory, Message: "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"}},
		"a host out of memory":                 {"FAILED", raised("<class 'MemoryError'>", ""), Failure{Category: OutOfMemory, Type: "MemoryError", Frame: frame}},
		"a CUDA error inside of a RuntimeError": {"FAILED", raised("<class 'RuntimeError'>", "CUDA error: out of memory"), Failure{
			Category: OutOfMemory, Type: "RuntimeError", Message: "CUDA error: out of memory", Frame: frame,
		}},
		"the library refusing the job": {
			"FAILED", `"Job has missing field(s): id or input."`, Failure{Category: Validation, Message: "Job has missing field(s): id or input."},
		},
		"pydantic": {"FAILED", raised("<class 'pydantic_core._pydantic_core.ValidationError'>", "1 error for Req"), Failure{
			Category: Validation, Type: "pydantic_core._pydantic_core.ValidationError", Message: "1 error for Req", Frame: frame,
		}},
		"a missing field": {"FAILED", raised("<class 'ValueError'>", "missing field prompt"), Failure{
			Category: Validation, Type: "ValueError", Message: "missing field prompt", Frame: frame,
		}},
		"any other exception": {"FAILED", raised("<class 'ValueError'>", "no such model"), Failure{
			Category: HandlerError, Type: "ValueError", Message: "no such model", Frame: frame,
		}},
		"the same without the second encoding": {"FAILED", `{"error_type":"KeyError","error_message":"'x'"}`, Failure{
			Category: HandlerError, Type: "KeyError", Message: "'x'",
		}},
		"an error that a handler returned": {"FAILED", `{"code":7}`, Failure{Category: HandlerError, Message: `{"code":7}`}},
		"a list that a handler returned":   {"FAILED", `["a","b"]`, Failure{Category: HandlerError, Message: `["a","b"]`}},
		"a number that a handler returned": {"FAILED", `42`, Failure{Category: HandlerError, Message: `42`}},
		"a string that only looks like JSON": {
			"FAILED", `"{not json"`, Failure{Category: Unknown, Message: "{not json"},
		},
		"a generator handler": {"FAILED", mustJSON(t, "handler: no such model traceback: "+traceback), Failure{
			Category: HandlerError, Message: "no such model", Frame: frame,
		}},
		"a bare traceback": {"FAILED", mustJSON(t, "boom\n"+traceback+"KeyError: 'x'\n"), Failure{
			Category: HandlerError, Type: "KeyError", Message: "'x'", Frame: frame,
		}},
		"a field of another type and one that is not": {"FAILED", `{"error_message":{"a":1},"detail":"no"}`, Failure{Category: HandlerError, Message: "no"}},
		"an error that holds what the job was given": {
			"FAILED", `{"code":7,"input":{"prompt":"canary"},"calls":[{"Output":"canary","n":1.50}],"env":{"A":"canary"}}`,
			Failure{Category: HandlerError, Message: `{"calls":[{"n":1.50}],"code":7}`},
		},
		"an error that is nothing else": {"FAILED", `{"input":"canary"}`, Failure{Category: HandlerError, Message: `{}`}},
		"the same as text": {
			"FAILED", `"{\"input\":\"canary\",\"code\":7}"`, Failure{Category: HandlerError, Message: `{"code":7}`},
		},
		"much that says nothing": {
			"FAILED", `{"x":"` + strings.Repeat("y", 100<<10) + `"}`,
			Failure{Category: HandlerError, Message: "102408 bytes of JSON that say neither type nor message"},
		},
		"many members": {
			"FAILED", `{` + strings.Repeat(`"x":1,`, 1<<16) + `"error_type":"E"}`, Failure{Category: HandlerError, Type: "E"},
		},
		"true":                    {"FAILED", `true`, Failure{Category: HandlerError, Message: "true"}},
		"a field of another type": {"FAILED", `{"error_type":5,"error_message":"m"}`, Failure{Category: HandlerError, Message: "m"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, ParseFailure(test.status, json.RawMessage(test.raw))); diff != "" {
				t.Errorf("failure (-want +got):\n%s", diff)
			}
		})
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFingerprintsTellCausesNotJobs(t *testing.T) {
	t.Parallel()
	parse := func(text string) string {
		return ParseFailure("FAILED", json.RawMessage(mustJSON(t, text))).Fingerprint()
	}
	if a, b := parse("slot 7 of 0xdeadbeef busy"), parse("slot 812 of 0xcafebabe busy"); a != b || len(a) != 12 {
		t.Errorf("one cause has two fingerprints, %q and %q", a, b)
	}
	if parse("slot 7 busy") == parse("disk 7 full") {
		t.Error("two causes have one fingerprint")
	}
	at := func(frame, message string) string {
		return Failure{Category: HandlerError, Type: "ValueError", Frame: frame, Message: message}.Fingerprint()
	}
	if at("/a.py:1 in f", "x") != at("/a.py:1 in f", "y") {
		t.Error("the message counts although there is a frame")
	}
	if at("/a.py:1 in f", "x") == at("/a.py:2 in f", "x") {
		t.Error("the frame does not count")
	}
}

func FuzzParseFailure(f *testing.F) {
	f.Add("FAILED", []byte(inString(f, map[string]string{"error_type": "<class 'X'>", "error_traceback": traceback})))
	f.Add("FAILED", []byte(`"handler: x traceback: File \"a\", line 1, in b"`))
	f.Add("TIMED_OUT", []byte(`{"error":{"message":["rpa_abc"]}}`))
	f.Add("", []byte("\"\xff\u202e"))
	f.Fuzz(func(t *testing.T, status string, raw []byte) {
		got := ParseFailure(status, raw)
		for _, text := range []struct {
			s   string
			max int
		}{{got.Message, maxMessageBytes}, {got.Type, maxTypeBytes}, {got.Frame, maxFrameBytes}} {
			if len(text.s) > text.max || !utf8.ValidString(text.s) {
				t.Errorf("%q is too long or no UTF-8", text.s)
			}
			if i := strings.IndexFunc(text.s, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%q does not print at %d", text.s, i)
			}
			if strings.Contains(text.s, "rpa_a") {
				t.Errorf("%q holds a key", text.s)
			}
		}
		switch got.Category {
		case Validation, TimedOut, OutOfMemory, Crash, HandlerError, Unknown:
		default:
			t.Errorf("category %q", got.Category)
		}
	})
}
