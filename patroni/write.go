package patroni

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// patchTimeout is for one PATCH /config, in which Patroni reads the DCS and writes it, each for up to its retry_timeout.
const patchTimeout = 15 * time.Second

// At returns a client with the same credentials for the REST API of another member, whose address that member has written into the DCS
// (api_url). The credentials go there: members of one cluster share theirs, and Patroni itself sends them so.
func (c *Client) At(apiURL string) (*Client, error) {
	u, err := url.Parse(apiURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, errors.New("patroni: the member's api_url is no http or https address")
	}
	if own, err := url.Parse(c.base); err == nil && own.Scheme == "https" && u.Scheme == "http" && c.password != "" {
		return nil, errors.New("patroni: the member's api_url is http, and ours https: the password is not sent without TLS")
	}
	other := *c
	other.base = u.Scheme + "://" + u.Host
	return &other, nil
}

// PatchConfig asks PATCH /config: change is merged into the dynamic configuration, null takes a key away, and the answer is all of it as it
// was written. Patroni reads the DCS for it and writes only what nobody else has written meanwhile (a compare-and-set on the key's version;
// api.py and dcs/etcd3.py, 4.0.7 and 4.1.5); else the error is [Refused] (409): look, and ask again. It may have been written all the same,
// where it was the DCS that did not take it. Where the change changes nothing it is not written, and the answer may be as old as Patroni's
// copy of the DCS.
//
// It blocks for 15 s at most. Whether it was done is not known after an error that is [Unanswered].
func (c *Client) PatchConfig(ctx context.Context, change map[string]any) (map[string]any, error) {
	const path = "/config"
	message, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	status, body, err := c.send(ctx, http.MethodPatch, path, message, http.StatusOK)
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, c.garbage(http.MethodPatch, path, status, nil, err) // the body may hold passwords
	}
	return all, nil
}

// Refused reports whether Patroni said no before it began: 400, 409, 412 and 422 (a time that is over), and 401 and 403 of [Unauthorized].
func Refused(err error) bool {
	return Unauthorized(err) || hasStatus(err, http.StatusBadRequest) || hasStatus(err, http.StatusConflict) ||
		hasStatus(err, http.StatusPreconditionFailed) || hasStatus(err, http.StatusUnprocessableEntity)
}

func hasStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.StatusCode == status && e.Err == nil
}

// SwitchoverOrder is the body of POST /switchover.
type SwitchoverOrder struct {
	Leader    string    // that is to be so no more; Patroni refuses (412) where another one is
	Candidate string    // "": Patroni chooses
	At        time.Time // zero: at once
}

// Switchover asks POST /switchover and blocks until Patroni answers or ctx is done. answer is what Patroni says. With a time it is only
// registered (202). Without one Patroni watches it for max(20 s, 2 × loop_wait) (api.py, poll_failover_result) and then says 503, "status
// unknown", although it goes on: where the error is not [Refused] the outcome is to be found out by looking, and it must not be sent
// again.
func (c *Client) Switchover(ctx context.Context, o SwitchoverOrder) (answer string, err error) {
	order := map[string]any{"leader": o.Leader}
	if o.Candidate != "" {
		order["candidate"] = o.Candidate
	}
	if !o.At.IsZero() {
		order["scheduled_at"] = o.At.Format(time.RFC3339)
	}
	return c.post(ctx, "/switchover", order)
}

// CancelSwitchover asks DELETE /switchover, which takes back one that waits for its time. It blocks for 10 s at most.
func (c *Client) CancelSwitchover(ctx context.Context) error {
	_, _, err := c.do(ctx, http.MethodDelete, "/switchover", http.StatusOK)
	return err
}

// Restart asks POST /restart of the member that the client is for, and blocks until Patroni has restarted its server or ctx is done: the
// call lasts as long as the stop, with before_stop, and the start. With pending, only where a restart is pending. An error that is not
// [Refused] says nothing about the server: 503 is "already in progress" and "still starting" as well as a failure.
func (c *Client) Restart(ctx context.Context, pending bool) (answer string, err error) {
	order := map[string]any{}
	if pending {
		order["restart_pending"] = true
	}
	return c.post(ctx, "/restart", order)
}

func (c *Client) post(ctx context.Context, path string, order map[string]any) (string, error) {
	message, err := json.Marshal(order)
	if err != nil {
		return "", err
	}
	_, body, err := c.send(ctx, http.MethodPost, path, message, http.StatusOK, http.StatusAccepted)
	return c.shorten(body), err
}

// Bare is the same client without a user and password, for calls that need none at an address that somebody else has written.
func (c *Client) Bare() *Client {
	bare := *c
	bare.username, bare.password = "", ""
	return &bare
}
