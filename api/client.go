package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Client calls the HTTP mode of one member. URL is needed. Each call blocks until the server has answered or the context has ended; the
// server takes a minute at most, [Client.Watch] aside. An error of the server is a [*Problem]; all others are of the connection or the
// answer. A Client may be used by several goroutines.
type Client struct {
	URL   string       // such as http://127.0.0.1:8009
	Token string       // bearer token; "" without, or with a client certificate in HTTP
	HTTP  *http.Client // nil is http.DefaultClient
}

const (
	maxAnswer    = 32 << 20 // bytes
	maxEventLine = 64 << 10
	watchAgain   = time.Second // after a stream that was cut
)

// Status is what pgbaton status shows. It may be a second old.
func (c *Client) Status(ctx context.Context) (StatusAnswer, error) {
	var s StatusAnswer
	err := c.call(ctx, http.MethodGet, "/v1/status", "", nil, &s)
	return s, err
}

// Check is what pgbaton check finds on the member. It may be some seconds old.
func (c *Client) Check(ctx context.Context) (CheckReport, error) {
	var r CheckReport
	err := c.call(ctx, http.MethodGet, CheckPath, "", nil, &r)
	return r, err
}

// Pause asks for a pause, and does not wait for it: see [Client.Watch]. The same key within 24 h is the same pause; "" is a new one each
// time.
func (c *Client) Pause(ctx context.Context, key string, body PauseBody) (Operation, error) {
	return c.post(ctx, KindPause, key, body)
}

// Resume resumes, and waits until that is done, for 30 s at most: what takes longer has not [Operation.Over].
func (c *Client) Resume(ctx context.Context, key string) (Operation, error) {
	return c.post(ctx, KindResume, key, nil)
}

// Reload asks for a reload of what the kind says, [KindReloadPostgres] or [KindReloadPgBouncer], and does not wait for it.
func (c *Client) Reload(ctx context.Context, kind, key string, body ReloadBody) (Operation, error) {
	return c.post(ctx, kind, key, body)
}

// CheckCluster asks for a look for everything that would spoil a handover, on every member, and does not wait for it. It changes nothing.
func (c *Client) CheckCluster(ctx context.Context, key string) (Operation, error) {
	return c.post(ctx, KindCheck, key, nil)
}

// Switchover asks for a switchover, and does not wait for it: see [Client.Watch]. Only one run of planned maintenance works on a cluster: a
// second one fails as refused, on whichever member.
func (c *Client) Switchover(ctx context.Context, key string, body SwitchoverBody) (Operation, error) {
	return c.post(ctx, KindSwitchover, key, body)
}

// Restart asks for a restart of members, and does not wait for it. It goes as [Client.Switchover] does.
func (c *Client) Restart(ctx context.Context, key string, body RestartBody) (Operation, error) {
	return c.post(ctx, KindRestart, key, body)
}

// Operations is what the server keeps, newest first, each with its last step only.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	var list OperationList
	err := c.call(ctx, http.MethodGet, "/v1/operations", "", nil, &list)
	return list.Operations, err
}

// Operation is one of them.
func (c *Client) Operation(ctx context.Context, id string) (Operation, error) {
	var o Operation
	err := c.call(ctx, http.MethodGet, OperationPath(id), "", nil, &o)
	return o, err
}

// Watch tells of each step of an operation, once and in order, and blocks until the operation has ended, which it returns, or the context
// has. A stream that is cut, as by a restart of the server, is asked for again behind the last step. tell may be nil.
func (c *Client) Watch(ctx context.Context, id string, tell func(Step)) (Operation, error) {
	last := 0
	for {
		err := c.steps(ctx, id, last, func(step Step) {
			last = step.ID
			if tell != nil {
				tell(step)
			}
		})
		var problem *Problem
		if errors.As(err, &problem) && problem.Class != Transient {
			return Operation{}, err
		}
		o, err := c.Operation(ctx, id)
		if ctx.Err() != nil || errors.As(err, &problem) && problem.Class != Transient {
			return o, err
		}
		if err == nil && o.Over() {
			return o, nil
		}
		timer := time.NewTimer(watchAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return o, ctx.Err()
		}
	}
}

// steps reads one stream to its end.
func (c *Client) steps(ctx context.Context, id string, after int, tell func(Step)) error {
	request, err := c.request(ctx, http.MethodGet, OperationPath(id)+"/events", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Last-Event-ID", strconv.Itoa(after))
	answer, err := c.http().Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 400 {
		return problemIn(answer)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var step Step
		if err := json.Unmarshal([]byte(data), &step); err != nil {
			return fmt.Errorf("a step of operation %s cannot be read: %w", id, err)
		}
		if step.ID > after {
			tell(step)
		}
	}
	return lines.Err()
}

func (c *Client) post(ctx context.Context, kind, key string, body any) (Operation, error) {
	var o Operation
	err := c.call(ctx, http.MethodPost, "/v1/"+kind, key, body, &o)
	return o, err
}

// call sends a request and reads its answer into a value.
func (c *Client) call(ctx context.Context, method, path, key string, body, into any) error {
	request, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	answer, err := c.http().Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		return problemIn(answer)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("%s %s: the answer cannot be read: %w", method, path, err)
	}
	return nil
}

func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return request, nil
}

func (c *Client) http() *http.Client {
	if c.HTTP == nil {
		return http.DefaultClient
	}
	return c.HTTP
}

// problemIn is the error of an answer. One without a problem comes from something in between.
func problemIn(answer *http.Response) error {
	if kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type")); err == nil && kind == ProblemType {
		var p Problem
		if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&p); err == nil {
			return &p
		}
	}
	return fmt.Errorf("%s %s: %s without a problem document: this is not pgbaton serve", answer.Request.Method, answer.Request.URL.Path,
		answer.Status)
}
