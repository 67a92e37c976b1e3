// A collector of traces, which decodes OTLP with the code that OpenTelemetry publishes, and tells each request as one
// line of JSON. It answers with the statuses it is given, one after the other, and then with 200.
package main

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// What one request was, and what it was answered with.
type told struct {
	Path        string `json:"path"`
	ContentType string `json:"contentType"`
	Status      int    `json:"status"`
	// Nanoseconds since the epoch.
	At    int64  `json:"at"`
	Error string `json:"error"`
	Spans []span `json:"spans"`
}

// One span, with what its resource and scope say.
type span struct {
	Trace      string         `json:"trace"`
	Span       string         `json:"span"`
	Parent     string         `json:"parent"`
	Name       string         `json:"name"`
	Kind       string         `json:"kind"`
	Start      uint64         `json:"start"`
	End        uint64         `json:"end"`
	Status     string         `json:"status"`
	Flags      uint32         `json:"flags"`
	Attributes map[string]any `json:"attributes"`
	Resource   map[string]any `json:"resource"`
	Scope      string         `json:"scope"`
}

func spans(traces *trace.TracesData) []span {
	all := []span{}
	for _, resource := range traces.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, one := range scope.Spans {
				all = append(all, span{
					Trace: hex.EncodeToString(one.TraceId), Span: hex.EncodeToString(one.SpanId),
					Parent: hex.EncodeToString(one.ParentSpanId), Name: one.Name, Kind: one.Kind.String(),
					Start: one.StartTimeUnixNano, End: one.EndTimeUnixNano, Status: one.Status.GetCode().String(),
					Flags: one.Flags, Attributes: values(one.Attributes), Resource: values(resource.Resource.GetAttributes()),
					Scope: scope.Scope.GetName(),
				})
			}
		}
	}
	return all
}

func values(attributes []*common.KeyValue) map[string]any {
	all := map[string]any{}
	for _, attribute := range attributes {
		switch value := attribute.Value.GetValue().(type) {
		case *common.AnyValue_StringValue:
			all[attribute.Key] = value.StringValue
		case *common.AnyValue_IntValue:
			all[attribute.Key] = value.IntValue
		default:
			all[attribute.Key] = fmt.Sprintf("%T", value)
		}
	}
	return all
}

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	statuses := flag.String("statuses", "", "what to answer first, such as 503,429")
	retryAfter := flag.String("retry-after", "", "Retry-After of answers that are not 200")
	delay := flag.Duration("delay", 0, "how long to wait before each answer")
	flag.Parse()
	var left []int
	for _, status := range strings.Split(*statuses, ",") {
		if number, err := strconv.Atoi(status); err == nil {
			left = append(left, number)
		}
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	var lock sync.Mutex
	err = http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		one := told{Path: request.URL.Path, ContentType: request.Header.Get("Content-Type"), Status: 200, At: time.Now().UnixNano()}
		if err == nil {
			// On the wire it is the same as an ExportTraceServiceRequest, whose package brings gRPC along.
			var traces trace.TracesData
			if err = proto.Unmarshal(body, &traces); err == nil {
				one.Spans = spans(&traces)
			}
		}
		if err != nil {
			one.Error, one.Status = err.Error(), 400
		}
		time.Sleep(*delay)
		lock.Lock()
		defer lock.Unlock()
		if len(left) > 0 {
			one.Status, left = left[0], left[1:]
		}
		if one.Status != 200 && *retryAfter != "" {
			answer.Header().Set("Retry-After", *retryAfter)
		}
		answer.WriteHeader(one.Status)
		line, _ := json.Marshal(one)
		fmt.Println(string(line))
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
