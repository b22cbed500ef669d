package kube_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/api"
)

// credential is one of those that the manifests' Secrets are made of.
func credential(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(cluster.manifests, "credentials", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// serve is a client of a member's, as an operator in the cluster has it.
func serve(t *testing.T, member string) *api.Client {
	t.Helper()
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM(credential(t, "tls.crt")) {
		t.Fatal("tls.crt is no certificate")
	}
	ip, err := cluster.Kubectl(t.Context(), "", "get", "pod", member, "--output", "jsonpath={.status.podIP}")
	must(t, ip, err)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: authority, ServerName: member + ".cluster-members"},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return cluster.Dial(ctx, network, net.JoinHostPort(ip, "8009"))
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &api.Client{URL: "https://" + member + ".cluster-members:8009", Token: string(credential(t, "operator-token")),
		HTTP: &http.Client{Transport: transport}}
}

// noneShutsDown ends the poolers that a test before has left, which wait for clients that have gone. The kubelet brings no changed file to
// them any more (1.34.4), and a reload says so of each.
func noneShutsDown(t *testing.T) {
	t.Helper()
	pods, err := cluster.pods(t.Context(), "app=pgbouncer")
	must(t, "pods", err)
	for _, p := range pods {
		if p.Metadata.DeletionTimestamp != "" {
			out, err := cluster.Kubectl(t.Context(), "", "delete", "pod", p.Metadata.Name, "--grace-period=0", "--force")
			must(t, out, err)
		}
	}
}

// A changed ConfigMap arrives in each pod in its own time. The reload waits for the version, and until every pooler runs it.
func TestReloadOfTheConfigMap(t *testing.T) {
	noneShutsDown(t)
	path := filepath.Join(cluster.manifests, "pooler", "pgbouncer.ini")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after := strings.NewReplacer("config-version: 1\n", "config-version: 2\n", "max_client_conn = 1000", "max_client_conn = 900").
		Replace(string(before))
	if err := os.WriteFile(path, []byte(after), 0o644); err != nil {
		t.Fatal(err)
	}
	event{rounds: 1, stall: noStall, do: func(t *testing.T, leader string) {
		out, err := cluster.Kubectl(t.Context(), "", "apply", "-k", filepath.Join(cluster.made, "own"))
		must(t, out, err)
		client := serve(t, leader)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		o, err := client.Reload(ctx, api.KindReloadPgBouncer, "", api.ReloadBody{ConfigVersion: "2", Timeout: "4m"})
		if err == nil {
			o, err = client.Watch(ctx, o.ID, func(s api.Step) { t.Logf("%+v", s) })
		}
		if err != nil || o.State != "succeeded" || o.Result == nil || o.Result.Reload == nil {
			t.Fatalf("%v: %+v, %+v", err, o, o.Problem)
		}
		if n := len(o.Result.Reload.Poolers); n != 2 {
			t.Errorf("%d poolers were reloaded", n)
		}
	}}.try(t)
}

// Who has no token learns nothing.
func TestServeWantsAToken(t *testing.T) {
	leader, err := cluster.leader(t.Context())
	must(t, leader, err)
	client := serve(t, leader)
	client.Token = "of-somebody-else-entirely"
	var problem *api.Problem
	if _, err := client.Status(t.Context()); !errors.As(err, &problem) || problem.Status != http.StatusUnauthorized {
		t.Errorf("%v", err)
	}
}

// serve is killed with its container: nobody is paused, and the kubelet starts another one.
func TestServeIsKilled(t *testing.T) {
	event{rounds: 1, stall: noStall, do: func(t *testing.T, leader string) {
		out, err := cluster.Exec(t.Context(), "", "ctr", "--address", "/run/containerd.sock", "--namespace", "k8s.io", "tasks", "kill",
			"--signal", "SIGKILL", containerID(t, leader, "serve"))
		must(t, out, err)
	}}.try(t)
}
