package httpapi

import (
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pgbaton/pgbaton/health"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/state"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgbaton/pgbaton/api"
)

// metrics are this server's own: nothing is registered anywhere else.
type metrics struct {
	registry *prometheus.Registry
	scraper  *scraper

	handovers  *prometheus.CounterVec
	handover   *prometheus.HistogramVec
	pause      prometheus.Histogram
	drain      prometheus.Histogram
	reloads    *prometheus.CounterVec
	leases     prometheus.Counter
	reconciled *prometheus.CounterVec
	errors     *prometheus.CounterVec
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	inFlight   prometheus.Gauge
	dropped    *prometheus.CounterVec

	paused map[pauseKey]state.Entry // PAUSE was sent, and its end was not seen
	lease  time.Duration            // of the guard's pauses
}

// pauseKey is a pause of one pooler.
type pauseKey struct{ handover, pooler string }

// pauseGrace is how much longer than its lease a guard's pause may seem to have lasted: a keeper that cannot reach the pooler goes on, and
// what was seen to end much later is the end of another one.
const pauseGrace = 30 * time.Second

// The parts of a handover that a member takes.
const (
	partGuard  = "guard"
	partWorker = "worker"
)

func newMetrics(version string, log *slog.Logger, lease time.Duration, status func() (health.Status, error)) *metrics {
	short := []float64{.01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 15, 30, 60}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		handovers: counter(
			"pgbaton_handovers_total",
			"Handovers that this member took part in, as the one that stops (guard) or the one that becomes primary (worker), by result.",
			"part",
			"result",
		),
		handover: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pgbaton_handover_duration_seconds",
			Help: "How long this member's part of a handover took.", Buckets: short}, []string{"part"}),
		pause: histogram(
			"pgbaton_pause_seconds",
			"From PAUSE to the end of the pause, for each pooler that was paused from this member. "+
				"Where another member resumed, up to 0.5 s more.",
			short,
		),
		drain:   histogram("pgbaton_drain_seconds", "From PAUSE until a pooler was drained.", short),
		reloads: counter("pgbaton_reloads_total", "Reloads of a program, by its kind and result.", "target", "result"),
		leases: prometheus.NewCounter(prometheus.CounterOpts{Name: "pgbaton_leases_expired_total",
			Help: "Pauses that were ended by their lease because nobody else did."}),
		reconciled: counter("pgbaton_reconciled_total",
			"What was done about pauses that had outlived their lease, or were not pgbaton's: resumed, put back, reported.", "done"),
		errors: counter("pgbaton_errors_total", "Problems that were answered, or with which an operation ended, by class.", "class"),
		requests: counter("pgbaton_http_requests_total",
			"Requests, by method, route and status. Those that net/http refuses before it knows the method are not among them.",
			"method", "route", "code"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pgbaton_http_request_duration_seconds",
			Help:    "How long requests took. Event streams are not among them.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 3, 10, 30}}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(
			prometheus.GaugeOpts{Name: "pgbaton_http_requests_in_flight", Help: "Requests that are being answered."},
		),
		dropped: counter(
			"pgbaton_http_connections_dropped_total",
			"Connections that were closed: idle, for a new one where too many were open; "+
				"not_reading, an answer could not be written in time.",
			"reason",
		),
		paused: map[pauseKey]state.Entry{},
		lease:  lease,
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "pgbaton_build_info", Help: "1, with the version of pgbaton and of Go.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	info.Set(1)
	m.registry.MustRegister(m.handovers, m.handover, m.pause, m.drain, m.reloads, m.leases, m.reconciled, m.errors, m.requests, m.duration,
		m.inFlight, m.dropped, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &statusCollector{ask: status})
	// There from the start, so that an increase from nothing is seen as one.
	for _, class := range []string{api.Transient, api.Validation, api.NotFound, api.Permanent} {
		m.errors.WithLabelValues(class)
	}
	for _, reason := range []string{droppedIdle, droppedUnread} {
		m.dropped.WithLabelValues(reason)
	}
	for _, part := range []string{partGuard, partWorker} {
		for code := member.Done; code <= member.Refused; code++ {
			m.handovers.WithLabelValues(part, resultOf(code))
		}
	}
	for _, target := range []string{api.TargetPostgres, api.TargetPgBouncer} {
		m.reloads.WithLabelValues(target, "succeeded")
		m.reloads.WithLabelValues(target, "failed")
	}
	for _, done := range []string{"resumed", "put back", "reported"} {
		m.reconciled.WithLabelValues(done)
	}
	// What cannot be gathered is left out: promhttp's own answer to it would be no problem, and what is left is of use.
	m.scraper = newScraper(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true,
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelError)}), log)
	return m
}

var knownMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodOptions, http.MethodConnect, http.MethodTrace}

// answered counts a request. A client cannot make new series: methods and routes are those that there are.
func (m *metrics) answered(method, pattern string, status int, took time.Duration) {
	if !slices.Contains(knownMethods, method) {
		method = "other"
	}
	m.requests.WithLabelValues(method, pattern, strconv.Itoa(status)).Inc()
	if pattern != eventsPattern {
		m.duration.WithLabelValues(method, pattern).Observe(took.Seconds())
	}
}

// journal counts an entry that a hook of this member has written.
func (m *metrics) journal(e state.Entry) {
	key := pauseKey{e.Handover, e.Pooler}
	switch e.Event {
	case state.EventReleased:
		m.handovers.WithLabelValues(partGuard, resultOf(e.Code)).Inc()
		m.handover.WithLabelValues(partGuard).Observe(e.Took.Seconds())
	case state.EventEnded:
		m.handovers.WithLabelValues(partWorker, resultOf(e.Code)).Inc()
		m.handover.WithLabelValues(partWorker).Observe(e.Took.Seconds())
	case state.EventPauseSent:
		if len(m.paused) < 1000 {
			m.paused[key] = e
		}
	case state.EventDrained:
		m.drain.Observe(e.Took.Seconds())
	case state.EventUndone, state.EventPauseOver:
		m.over(key, e.Time)
	case state.EventLeaseExpired:
		m.leases.Inc()
		m.endPauses(e)
	case state.EventResumed:
		m.endPauses(e)
	case state.EventReloaded:
		m.reloads.WithLabelValues(targetLabel(e.Target), "succeeded").Inc()
	case state.EventNotReloaded, state.EventNotBegun:
		m.reloads.WithLabelValues(targetLabel(e.Target), "failed").Inc()
	}
}

// targetLabel is one of those that there are.
func targetLabel(target string) string {
	if target == api.TargetPostgres || target == api.TargetPgBouncer {
		return target
	}
	return "other"
}

const (
	maxLabel   = 300  // bytes of a label's value: a host name has at most 255
	maxPoolers = 1000 // that have series of their own
)

// label makes a name that comes from elsewhere fit for a label: bounded, valid UTF-8 (client_golang panics for what is not), in one line,
// without control characters.
func label(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, state.Clip(name, maxLabel))
}

// endPauses: who resumes a pooler ends every pause of it.
func (m *metrics) endPauses(e state.Entry) {
	for key := range m.paused {
		if key.pooler == e.Pooler {
			m.over(key, e.Time)
		}
	}
}

func (m *metrics) over(key pauseKey, at time.Time) {
	sent, ok := m.paused[key]
	if !ok {
		return
	}
	delete(m.paused, key)
	took := at.Sub(sent.Time)
	// Whose keeper was killed ended unseen where another member resumed it.
	if took >= 0 && (sent.Hook != "before_stop" || took <= m.lease+pauseGrace) {
		m.pause.Observe(took.Seconds())
	}
}

func resultOf(code int) string {
	switch code {
	case member.Done:
		return "done"
	case member.Invalid:
		return "invalid"
	case member.BudgetSpent:
		return "budget_spent"
	case member.Refused:
		return "refused"
	}
	return "failed"
}

// statusCollector asks when Prometheus does.
type statusCollector struct {
	ask func() (health.Status, error)
}

var (
	pausedDesc = prometheus.NewDesc("pgbaton_pooler_paused",
		"1 when the pooler is paused, 0 when it is not. Not there when it cannot be told.", []string{"pooler"}, nil)
	upDesc      = prometheus.NewDesc("pgbaton_pooler_up", "1 when the pooler answers.", []string{"pooler"}, nil)
	waitingDesc = prometheus.NewDesc(
		"pgbaton_pooler_waiting_clients",
		"Clients that wait for a server connection.",
		[]string{"pooler"},
		nil,
	)
	leaseDesc = prometheus.NewDesc("pgbaton_lease_expiry_timestamp_seconds", "When a pause of this member ends by itself.",
		[]string{"owner"}, nil)
	validDesc = prometheus.NewDesc("pgbaton_configuration_valid",
		"1 when pgbaton's configuration is usable now; 0: every hook exits with code 2 and pauses nothing.", nil, nil)
	versionDesc = prometheus.NewDesc("pgbaton_config_version", "Version of a configuration: wanted at its source, on disk, applied.",
		[]string{"target", "stage"}, nil)
)

func (c *statusCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{pausedDesc, upDesc, waitingDesc, leaseDesc, validDesc, versionDesc} {
		out <- d
	}
}

func (c *statusCollector) Collect(out chan<- prometheus.Metric) {
	s, err := c.ask()
	if err != nil {
		return // the server is ending
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, c := range s.Conditions {
		if c.Type == api.ConditionValid {
			gauge(validDesc, b2f(c.Status == "True"))
		}
	}
	seen := map[string]bool{}
	for _, p := range s.Poolers {
		name := label(p.Pooler)
		if seen[name] || len(seen) == maxPoolers {
			continue // the same one twice in the configuration, or more than anybody looks at
		}
		seen[name] = true
		gauge(upDesc, b2f(p.Error == ""), name)
		if p.Error != "" {
			continue
		}
		gauge(waitingDesc, float64(p.Waiting), name)
		switch {
		case p.Paused == "yes" || len(p.Databases) > 0:
			gauge(pausedDesc, 1, name)
		case p.Paused == "no":
			gauge(pausedDesc, 0, name)
		}
	}
	for _, l := range s.Leases {
		gauge(leaseDesc, float64(l.Until.UnixMilli())/1000, label(l.Owner))
	}
	versionGauges(s, func(target, stage string, version float64) { gauge(versionDesc, version, target, stage) })
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
