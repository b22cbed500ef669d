package main

import (
	"bytes"
	"io"
	"time"
)

const (
	queuedLines  = 1000
	flushTimeout = 100 * time.Millisecond
)

// unblocked hands lines on to a writer and never waits for it: a hook must not hang on a log that nobody reads, or the server's stop would
// hang on it. Lines that come too fast for the reader are dropped.
type unblocked struct {
	lines chan []byte // nil: what was written before is out
	out   chan struct{}
}

func newUnblocked(w io.Writer) *unblocked {
	u := &unblocked{lines: make(chan []byte, queuedLines), out: make(chan struct{}, 1)}
	go func() {
		for line := range u.lines {
			if line == nil {
				u.out <- struct{}{}
				return
			}
			_, _ = w.Write(line)
		}
	}()
	return u
}

func (u *unblocked) Write(line []byte) (int, error) {
	select {
	case u.lines <- bytes.Clone(line):
	default:
	}
	return len(line), nil
}

// flush waits until everything is out, 0.1 s at most. What is written after it is lost.
func (u *unblocked) flush() {
	timer := time.NewTimer(flushTimeout)
	defer timer.Stop()
	select {
	case u.lines <- nil:
	case <-timer.C:
		return
	}
	select {
	case <-u.out:
	case <-timer.C:
	}
}
