package kube_test

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// patroniTTL is the manifests' Patroni's.
const patroniTTL = 30 * time.Second

// inTransaction is a client that writes a row, works on for a while, and commits. It goes through the poolers' Service.
func inTransaction(t *testing.T, length time.Duration) (end func() error) {
	t.Helper()
	ip, err := cluster.Kubectl(t.Context(), "", "get", "service", "pgbouncer", "--output", "jsonpath={.spec.clusterIP}")
	must(t, ip, err)
	config, err := pgconn.ParseConfig("host=" + ip + " port=5432 user=postgres dbname=postgres sslmode=disable")
	must(t, "dsn", err)
	config.Password, config.DialFunc = string(credential(t, "superuser-password")), cluster.Dial
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	must(t, "connect", err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	exec := func(sql string) error {
		_, err := conn.Exec(t.Context(), sql).ReadAll()
		return err
	}
	must(t, "table", exec("CREATE TABLE IF NOT EXISTS held (at timestamptz)"))
	must(t, "begin", exec("BEGIN; INSERT INTO held VALUES (now())"))
	done := make(chan error, 1)
	go func() {
		err := exec(fmt.Sprintf("SELECT pg_sleep(%f)", length.Seconds()))
		if err == nil {
			err = exec("COMMIT")
		}
		done <- err
	}()
	return func() error { return <-done }
}

// The stop of a pod waits for a long transaction while everybody works, and its client has its commit.
func TestDeletePrimaryUnderATransaction(t *testing.T) {
	event{rounds: rounds(1, 2), do: func(t *testing.T, leader string) {
		end := inTransaction(t, 20*time.Second)
		out, err := cluster.Kubectl(t.Context(), "", "delete", "pod", leader)
		must(t, out, err)
		if err := end(); err != nil {
			t.Errorf("the long transaction: %v", err)
		}
	}}.try(t)
}

// Nobody can plan for a pod that is taken away by force: clients have what Patroni's failover gives them, and no pooler is left paused.
func TestForceDeletePrimary(t *testing.T) {
	event{rounds: 1, broken: true, stall: patroniTTL + 15*time.Second, do: func(t *testing.T, leader string) {
		out, err := cluster.Kubectl(t.Context(), "", "delete", "pod", leader, "--grace-period=0", "--force")
		must(t, out, err)
	}}.try(t)
}

// The API server, which is Patroni's DCS here, hangs for 20 s from the middle of a switchover on.
func TestAPIServerAway(t *testing.T) {
	event{rounds: 1, broken: true, stall: 20*time.Second + patroniTTL + 15*time.Second, do: func(t *testing.T, leader string) {
		begins := says(t, leader, "hook=before_stop")
		go func() { _, _ = cluster.patronictl(context.Background(), "switchover", "--force") }() // it hangs with the API server
		if !begins() {
			t.Fatal("no guard begins")
		}
		must(t, "stop", cluster.Signal("kube-apiserver", syscall.SIGSTOP))
		select {
		case <-t.Context().Done():
		case <-time.After(20 * time.Second): // the case
		}
		must(t, "continue", cluster.Signal("kube-apiserver", syscall.SIGCONT))
	}}.try(t)
}

// says follows what a member's Patroni and its hooks say. The returned function waits until they say something, and not for ever.
func says(t *testing.T, member, text string) func() bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	logs := cluster.KubectlCommand(ctx, "logs", "--follow", "--tail=0", member, "--container", "patroni")
	out, err := logs.StdoutPipe()
	must(t, "logs", err)
	must(t, "logs", logs.Start())
	return func() bool {
		defer func() {
			_ = logs.Process.Kill()
			_ = logs.Wait()
		}()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), text) {
				return true
			}
		}
		return false
	}
}
