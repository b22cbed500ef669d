package httpapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgbaton/pgbaton/state"
)

// Limits of the server.
const (
	maxBody       = 64 << 10 // bytes
	maxHeader     = 16 << 10
	maxRequests   = 256 // at a time, of callers that are known; what is open to all is not counted
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	writeTimeout  = 60 * time.Second // also the longest that a handler takes, event streams aside
	idleTimeout   = 60 * time.Second
	openTimeout   = 5 * time.Second // to write an answer to somebody who has not said who they are
	retryOverload = time.Second

	reservedRequests = 32 // of maxRequests, for routes with the scope operate: who may only read cannot shut them out
)

// access is what a route asks of a caller.
type access int

const (
	openToAll access = iota
	toRead
	toOperate
)

// route is one path and method, beyond what huma knows of it.
type route struct {
	pattern  string // "GET /v1/status"
	access   access
	produces []string
}

type callerKey struct{}

// callerOf is who sent a request.
func callerOf(ctx context.Context) caller {
	who, _ := ctx.Value(callerKey{}).(caller)
	return who
}

type bodyKey struct{}

// bodyOf is the request's body as it was sent.
func bodyOf(ctx context.Context) []byte {
	body, _ := ctx.Value(bodyKey{}).([]byte)
	return body
}

// response remembers what was answered.
type response struct {
	http.ResponseWriter
	status int
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush is for event streams.
func (w *response) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// ServeHTTP answers a request: everything that holds for all routes is here, one thing after the other.
func (s *Server) ServeHTTP(plain http.ResponseWriter, r *http.Request) {
	started := time.Now()
	w := &response{ResponseWriter: plain}
	pattern := "other"
	instance := newInstance()
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	defer func() {
		if fault := recover(); fault != nil {
			if fault == http.ErrAbortHandler {
				panic(fault)
			}
			s.log.Error("a handler panicked", "instance", instance, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			if w.status != 0 {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			s.refuse(w, r, instance, internalError.problem("the log has more"))
		}
		s.metrics.answered(r.Method, pattern, w.status, time.Since(started))
	}()
	r = r.WithContext(context.WithValue(r.Context(), instanceKey{}, instance))
	if r.TLS == nil {
		r.TLS = tlsOf(r.Context())
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	// A body is read whole before anything is done, or not at all; either way within its time.
	control := http.NewResponseController(plain)
	_ = control.SetWriteDeadline(started.Add(s.openTimeout))
	if r.ContentLength != 0 {
		_ = control.SetReadDeadline(time.Now().Add(s.bodyTimeout))
	}
	if r.Method == http.MethodOptions && strings.HasPrefix(r.URL.Path, routePrefix) {
		r.Method = http.MethodGet // HAProxy's checks ask so where nobody has told them otherwise, and Patroni answers both alike
	}
	route, allow := s.find(r)
	if route != nil {
		pattern = route.pattern
	}
	if p := s.admit(r, route, allow); p != nil {
		s.refuse(w, r, instance, p)
		return
	}
	if r.Method == http.MethodOptions {
		h.Set("Allow", allow)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	who := caller{}
	if route.access != openToAll {
		var p *refusal
		if who, p = s.guard.authenticate(r); p == nil && route.access == toOperate && !who.operate {
			p = forbidden.problem("this needs the scope operate")
			p.header("WWW-Authenticate", `Bearer realm="pgbaton", error="insufficient_scope", scope="operate"`)
		}
		if p != nil {
			s.refuse(w, r, instance, p)
			return
		}
		release := s.take(route.access)
		if release == nil {
			s.refuse(
				w,
				r,
				instance,
				overloaded.problem(fmt.Sprintf("%d requests are being answered", maxRequests)).retryAfter(retryOverload),
			)
			return
		}
		defer release()
		if c := connOf(r.Context()); c != nil {
			defer c.serve()()
		}
		_ = control.SetWriteDeadline(started.Add(s.writeTimeout))
	}
	if !accepts(r.Header.Values("Accept"), route.produces) {
		s.refuse(w, r, instance, notAcceptable.problem("this answers with "+strings.Join(route.produces, " or ")))
		return
	}
	if len(route.produces) == 1 {
		r.Header.Set("Accept", route.produces[0]) // what follows need not find out again
	}
	// Nobody has to say who he is there, so nobody holds a slot with a body that does not come.
	if route.access == openToAll && r.ContentLength != 0 {
		r.Body = http.NoBody
		h.Set("Connection", "close")
	}
	body, p := readBody(r)
	if p != nil {
		h.Set("Connection", "close")
		s.refuse(w, r, instance, p)
		return
	}
	_ = control.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	ctx := context.WithValue(context.WithValue(r.Context(), callerKey{}, who), bodyKey{}, body)
	s.mux.ServeHTTP(w, r.WithContext(ctx))
}

// take takes a place among the requests that are being answered; nil where there is none.
func (s *Server) take(a access) (release func()) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }
	default:
	}
	if a != toOperate {
		return nil
	}
	select {
	case s.reserved <- struct{}{}:
		return func() { <-s.reserved }
	default:
		return nil
	}
}

// admit is what is refused before it counts.
func (s *Server) admit(r *http.Request, route *route, allow string) *refusal {
	switch {
	case route == nil && allow == "":
		return notFound.problem("the paths are in /openapi.json")
	case s.guard.open() && !(r.Host == "" && route != nil && strings.HasPrefix(r.URL.Path, routePrefix)) && !ownName(r.Host):
		// A name that somebody else can make lead to us is how a web page gets past its browser (DNS rebinding). Browsers send one always;
		// HAProxy's check does not by itself.
		return misdirected.problem("without authentication this server answers only to localhost and loopback addresses")
	case route == nil && r.Method != http.MethodOptions:
		return methodNotAllowed.problem("it has "+allow).header("Allow", allow)
	case r.ContentLength > maxBody:
		return contentTooLarge.problem(fmt.Sprintf("the body may have %d KiB", maxBody>>10)).header("Connection", "close")
	}
	if err := s.origins.Check(r); err != nil {
		return crossOrigin.problem("this is no call for a web page")
	}
	return nil
}

func ownName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" || host == "" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// find is a request's route; or, where its path is known and its method is not, the methods that are.
func (s *Server) find(r *http.Request) (found *route, allow string) {
	if clean := path.Clean(r.URL.Path); r.URL.Path == "" || r.URL.Path != clean && r.URL.Path != "*" || r.Method == http.MethodConnect {
		return nil, "" // the mux would lead elsewhere
	}
	handler, pattern := s.mux.Handler(r)
	if pattern != "" {
		if i := slices.IndexFunc(s.routes, func(x route) bool { return x.pattern == pattern }); i >= 0 {
			_, path, _ := strings.Cut(pattern, " ")
			return &s.routes[i], s.methods(path)
		}
		return nil, ""
	}
	// The mux tells in a header which methods there are.
	asked := &onlyHeader{header: http.Header{}}
	handler.ServeHTTP(asked, r)
	return nil, asked.header.Get("Allow")
}

// methods are those of a path.
func (s *Server) methods(path string) string {
	var names []string
	for _, x := range s.routes {
		if method, of, _ := strings.Cut(x.pattern, " "); of == path {
			names = append(names, method)
			if method == http.MethodGet {
				names = append(names, http.MethodHead)
			}
		}
	}
	return strings.Join(names, ", ")
}

type onlyHeader struct{ header http.Header }

func (o *onlyHeader) Header() http.Header         { return o.header }
func (o *onlyHeader) Write(b []byte) (int, error) { return len(b), nil }
func (o *onlyHeader) WriteHeader(int)             {}

// accepts reports whether one of the media types is among those that an Accept header names. None named is all.
func accepts(headers, produces []string) bool {
	if len(headers) == 0 || len(produces) == 0 {
		return true
	}
	named := false
	refused := map[string]bool{}
	var ranges []string
	for part := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		media, parameters, _ := strings.Cut(part, ";")
		if media = strings.ToLower(strings.TrimSpace(media)); media == "" {
			continue
		}
		named = true
		zero := false
		for parameter := range strings.SplitSeq(parameters, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
			if q, err := strconv.ParseFloat(value, 64); strings.EqualFold(name, "q") && err == nil && q == 0 {
				zero = true
			}
		}
		if zero {
			refused[media] = true
		} else {
			ranges = append(ranges, media)
		}
	}
	if !named {
		return true
	}
	return slices.ContainsFunc(produces, func(p string) bool {
		main, _, _ := strings.Cut(p, "/")
		return !refused[p] && slices.ContainsFunc(ranges, func(r string) bool { return r == p || r == main+"/*" || r == "*/*" })
	})
}

// readBody reads all of it, maxBody at most.
func readBody(r *http.Request) ([]byte, *refusal) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case len(body) > maxBody:
		return nil, contentTooLarge.problem(fmt.Sprintf("the body may have %d KiB", maxBody>>10))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, requestTimeout.problem("the body did not arrive in time")
	case err != nil:
		return nil, malformedRequest.problem("the body cannot be read to its end")
	}
	return body, nil
}

type instanceKey struct{}

func newInstance() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand, Go 1.24)
	return "urn:pgbaton:request:" + hex.EncodeToString(b)
}

func instanceOf(ctx context.Context) string {
	instance, _ := ctx.Value(instanceKey{}).(string)
	return instance
}

// refuse answers with a problem, counts and logs it.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, instance string, p *refusal) {
	s.told(r.Context(), r.Method, r.URL.Path, instance, p)
	p.write(w)
}

// told completes a problem that is about to be answered.
func (s *Server) told(ctx context.Context, method, path, instance string, p *refusal) {
	p.Instance = instance
	toBalancer := strings.HasPrefix(path, routePrefix) // whose every look at a replica this is: no error
	if !p.counted && !toBalancer {
		s.metrics.errors.WithLabelValues(p.Class).Inc()
	}
	level := s.log.Debug
	if p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden || p.Status >= 500 && !toBalancer {
		level = s.log.Warn
	}
	level("refused", "instance", instance, "method", state.Clip(method, 20), "path", state.Clip(path, 200), "status", p.Status, "problem",
		p.Name(),
		"detail", p.Detail, "caller", callerOf(ctx).name)
}
