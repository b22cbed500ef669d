package httpapi

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
)

// scrapeAge is how long an answer of /metrics is handed out again: so many that are waiting to be read take no memory.
const scrapeAge = 100 * time.Millisecond

// scraper makes the finished texts that /metrics is answered with. One is made at a time in each form, for all who wait for it: who does
// not read it holds nobody up.
type scraper struct {
	render http.Handler
	log    *slog.Logger

	mu    sync.Mutex
	texts map[string]*scrape // by form
}

// scrape is an answer, finished when made is closed.
type scrape struct {
	made   chan struct{}
	at     time.Time
	header http.Header
	body   bytes.Buffer
	failed bool
}

func newScraper(render http.Handler, log *slog.Logger) *scraper {
	return &scraper{render: render, log: log, texts: map[string]*scrape{}}
}

// Header, Write and WriteHeader are for what renders it.
func (x *scrape) Header() http.Header         { return x.header }
func (x *scrape) Write(b []byte) (int, error) { return x.body.Write(b) }
func (x *scrape) WriteHeader(status int)      { x.failed = status != http.StatusOK }

// scrape answers /metrics. It blocks until there is an answer, which is as long as the status takes, and until it is written.
func (s *Server) scrape(w http.ResponseWriter, r *http.Request) {
	x := s.metrics.scraper.get(r)
	<-x.made
	if x.failed {
		s.refuse(w, r, instanceOf(r.Context()), internalError.problem("the log has more"))
		return
	}
	for name, values := range x.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(x.body.Len()))
	_, _ = w.Write(x.body.Bytes()) // who asked may have gone
}

// get is a text that is being made, or is as good as new.
func (s *scraper) get(r *http.Request) *scrape {
	// The forms that there are, however many ways there are to ask for them.
	form := string(expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...))
	coding := "identity"
	if accepts(r.Header.Values("Accept-Encoding"), []string{"gzip"}) && r.Header.Get("Accept-Encoding") != "" {
		coding = "gzip"
	}
	key := form + " " + coding
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.texts[key]; x != nil {
		select {
		case <-x.made:
			if time.Since(x.at) < scrapeAge {
				return x
			}
		default:
			return x
		}
	}
	for old, x := range s.texts { // nothing is kept that is not handed out any more
		select {
		case <-x.made:
			if time.Since(x.at) >= scrapeAge {
				delete(s.texts, old)
			}
		default:
		}
	}
	x := &scrape{made: make(chan struct{}), header: http.Header{}}
	s.texts[key] = x
	request := &http.Request{Method: http.MethodGet, URL: r.URL, Header: http.Header{"Accept": r.Header.Values("Accept"),
		"Accept-Encoding": {coding}}}
	go func() {
		defer close(x.made)
		defer func() {
			if fault := recover(); fault != nil {
				x.failed = true
				s.log.Error("gathering the metrics panicked", "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			}
			x.at = time.Now()
		}()
		s.render.ServeHTTP(x, request)
	}()
	return x
}
