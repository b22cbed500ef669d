package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// etcd reads keys through etcd's JSON gateway.
type etcd struct {
	url    string
	client *http.Client
}

type etcdKV struct {
	Key         []byte `json:"key"` // base64 in JSON
	Value       []byte `json:"value"`
	ModRevision string `json:"mod_revision"`
}

func (e *etcd) post(ctx context.Context, path string, body any) (*http.Response, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		return nil, fmt.Errorf("etcd %s: %s: %s", path, resp.Status, text)
	}
	return resp, nil
}

// get returns a key's value and the revision of the store at that moment. A missing key is "".
func (e *etcd) get(ctx context.Context, key string) (value string, revision int64, err error) {
	kvs, revision, err := e.fetch(ctx, key)
	if len(kvs) > 0 {
		value = string(kvs[0].Value)
	}
	return value, revision, err
}

// exists tells whether there is such a key, be it empty.
func (e *etcd) exists(ctx context.Context, key string) (bool, error) {
	kvs, _, err := e.fetch(ctx, key)
	return len(kvs) > 0, err
}

func (e *etcd) fetch(ctx context.Context, key string) ([]etcdKV, int64, error) {
	resp, err := e.post(ctx, "/v3/kv/range", map[string]any{"key": []byte(key)})
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Header struct {
			Revision string `json:"revision"`
		} `json:"header"`
		KVs []etcdKV `json:"kvs"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, 0, err
	}
	revision, err := strconv.ParseInt(answer.Header.Revision, 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("etcd: revision %q", answer.Header.Revision)
	}
	return answer.KVs, revision, nil
}

// watch calls changed with the key's value, now and at each change ("" when it was deleted), until ctx
// ends or the connection breaks.
func (e *etcd) watch(ctx context.Context, key string, changed func(value string)) error {
	value, revision, err := e.get(ctx, key)
	if err != nil {
		return err
	}
	changed(value)
	resp, err := e.post(ctx, "/v3/watch", map[string]any{"create_request": map[string]any{
		"key": base64.StdEncoding.EncodeToString([]byte(key)), "start_revision": strconv.FormatInt(revision+1, 10)}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var answer struct {
			Result struct {
				Canceled bool `json:"canceled"`
				Events   []struct {
					Type string `json:"type"` // PUT is the zero value and left out
					KV   etcdKV `json:"kv"`
				} `json:"events"`
			} `json:"result"`
		}
		if err := json.Unmarshal(lines.Bytes(), &answer); err != nil {
			return fmt.Errorf("etcd watch: %w", err)
		}
		if answer.Result.Canceled {
			return fmt.Errorf("etcd watch: cancelled by the server")
		}
		for _, ev := range answer.Result.Events {
			if ev.Type == "DELETE" {
				changed("")
			} else {
				changed(string(ev.KV.Value))
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// dcsProxy forwards one member's connections to etcd, and can stop doing so: bytes then stay where they
// are, nothing is closed, and new connections are accepted by the kernel and hang. That is what a member
// sees when the network to the DCS is cut.
type dcsProxy struct {
	target   string
	listener net.Listener

	mu    sync.Mutex
	gate  chan struct{} // closed: open for traffic
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

func newDCSProxy(listen, target string) (*dcsProxy, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	open := make(chan struct{})
	close(open)
	p := &dcsProxy{target: target, listener: l, gate: open, conns: map[net.Conn]struct{}{}}
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

func (p *dcsProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		p.gate = make(chan struct{})
	default: // cut already
	}
}

func (p *dcsProxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// pass waits until traffic may flow.
func (p *dcsProxy) pass() {
	for {
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		<-gate
		p.mu.Lock()
		same := gate == p.gate
		p.mu.Unlock()
		if same {
			return
		}
	}
}

func (p *dcsProxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *dcsProxy) release(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *dcsProxy) accept() {
	defer p.wg.Done()
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.hold(in) {
			return
		}
		p.wg.Add(1)
		go p.forward(in)
	}
}

func (p *dcsProxy) forward(in net.Conn) {
	defer p.wg.Done()
	defer p.release(in)
	p.pass()
	out, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil || !p.hold(out) {
		return
	}
	defer p.release(out)
	p.wg.Add(1)
	go func() { defer p.wg.Done(); p.copy(in, out) }()
	p.copy(out, in)
}

// copy moves bytes from src to dst, and closes both at the end.
func (p *dcsProxy) copy(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		p.pass()
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *dcsProxy) close() {
	p.listener.Close()
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	p.heal()
	for c := range conns {
		c.Close()
	}
	p.wg.Wait()
}
