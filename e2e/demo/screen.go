package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// screen shows what happens: a line for each step and, on a terminal, a line below them that lives.
type screen struct {
	out   io.Writer
	live  bool // a terminal
	begin time.Time

	mu     sync.Mutex
	bottom string
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, begin: time.Now()}
	if f, ok := out.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		s.live = err == nil
	}
	return s
}

// step writes a line with the time since the beginning.
func (s *screen) step(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprintf(s.out, "%6.1f s  %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
	s.draw()
}

// print writes text as it is.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprint(s.out, text)
	s.draw()
}

// setBottom replaces the living line; without a terminal there is none.
func (s *screen) setBottom(text string) {
	if !s.live {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	s.bottom = text
	s.draw()
}

func (s *screen) close() { s.setBottom("") }

func (s *screen) erase() {
	if s.bottom != "" {
		fmt.Fprint(s.out, "\r\033[K")
	}
}

func (s *screen) draw() {
	if s.bottom != "" {
		fmt.Fprint(s.out, s.bottom)
	}
}

// commitCounter is what a probe tells while it runs.
type commitCounter interface{ Commits() int }

// watch shows the throughput on the living line until the returned function is called.
func (s *screen) watch(label string, probe commitCounter, errorCount func() int) (stop func()) {
	if !s.live {
		return func() {}
	}
	const every, width = 100 * time.Millisecond, 24 // the whole line is shorter than 80 columns
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer s.setBottom("")
		tick := time.NewTicker(every)
		defer tick.Stop()
		var rates []float64
		commits, at := probe.Commits(), time.Now()
		for {
			select {
			case <-quit:
				return
			case now := <-tick.C:
				n := probe.Commits()
				rates = append(rates, float64(n-commits)/now.Sub(at).Seconds())
				commits, at = n, now
				if len(rates) > width {
					rates = rates[len(rates)-width:]
				}
				s.setBottom(fmt.Sprintf("%6.1f s  %s %4.0f writes/s  %d errors  %s",
					now.Sub(s.begin).Seconds(), sparkline(rates), rates[len(rates)-1], errorCount(), label))
			}
		}
	}()
	return func() { close(quit); <-done }
}

// sparkline draws one character for each value, the highest one full; nothing at all is a dot.
func sparkline(values []float64) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	highest := 1.0
	for _, v := range values {
		highest = max(highest, v)
	}
	var b strings.Builder
	for _, v := range values {
		if v <= 0 {
			b.WriteRune('·')
			continue
		}
		b.WriteRune(levels[min(int(v/highest*float64(len(levels))), len(levels)-1)])
	}
	return b.String()
}
