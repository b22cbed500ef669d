package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

const (
	eventsPattern = "GET /v1/operations/{id}/events"
	maxStreams    = 64               // open at a time
	heartbeat     = 15 * time.Second // a comment, so that nobody in between takes the stream for dead
	streamWrite   = 10 * time.Second // a reader that takes longer is dropped; it comes back with Last-Event-ID
	streamCheck   = time.Second      // between looks whether the reader may still read
)

type eventsInput struct {
	ID          string `path:"id" doc:"Of the operation"`
	LastEventID int    `header:"Last-Event-ID" minimum:"0" doc:"Goes on behind this event"`
}

// events streams the steps of an operation until it has ended. Nothing is buffered for a slow reader: each reader goes through the kept
// steps at his own pace.
func (s *Server) events(_ context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	o, _, ok := s.operations.Get(in.ID)
	if !ok {
		return nil, s.noOperation()
	}
	after := in.LastEventID
	if o.Over() && (len(o.Steps) == 0 || o.Steps[len(o.Steps)-1].ID <= after) {
		// What tells a browser's EventSource not to come back.
		return &huma.StreamResponse{Body: func(ctx huma.Context) { ctx.SetStatus(http.StatusNoContent) }}, nil
	}
	select {
	case s.streams <- struct{}{}:
	default:
		return nil, overloaded.problem(fmt.Sprintf("%d event streams are open", maxStreams)).retryAfter(5 * time.Second)
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer func() { <-s.streams }()
		r, w := humago.Unwrap(ctx)
		s.stream(r, w, in.ID, after)
	}}, nil
}

func (s *Server) stream(r *http.Request, w http.ResponseWriter, id string, after int) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	send := func(text []byte) bool {
		_ = control.SetWriteDeadline(time.Now().Add(streamWrite))
		_, err := w.Write(text)
		if err == nil {
			err = control.Flush()
		}
		return err == nil
	}
	// Also what ends the stream has to be written, when the last step is long ago.
	defer func() { _ = control.SetWriteDeadline(time.Now().Add(streamWrite)) }()
	check := time.NewTicker(streamCheck)
	defer check.Stop()
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	if !send([]byte("retry: 2000\n\n")) {
		return
	}
	for {
		o, changed, ok := s.operations.Get(id)
		if !ok {
			return
		}
		var text []byte
		for _, step := range o.Steps {
			if step.ID <= after {
				continue
			}
			data, err := json.Marshal(step)
			if err != nil {
				return
			}
			text = fmt.Appendf(text, "id: %d\nevent: step\ndata: %s\n\n", step.ID, data)
			after = step.ID
		}
		if len(text) > 0 && !send(text) || o.Over() {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-changed:
				waiting = false
			case <-beat.C:
				if !send([]byte(": still here\n\n")) {
					return
				}
			case <-check.C:
				if _, p := s.guard.authenticate(r); p != nil {
					return
				}
			case <-r.Context().Done():
				return
			case <-s.stopping:
				return
			}
		}
	}
}
