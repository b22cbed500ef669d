package kube_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/seen"
)

var demoFile = flag.String("demo", "", "where to write what the demo has seen; without it there is no demo")

// followed are the logs of the members and the poolers while something is done to them, also of those that are gone afterwards.
type followed struct {
	programs []*exec.Cmd
	said     map[string]*bytes.Buffer // by kind and name of the pod
}

func followLogs(t *testing.T) *followed {
	t.Helper()
	f := &followed{said: map[string]*bytes.Buffer{}}
	t.Cleanup(f.end)
	for kind, selector := range map[string]string{"patroni": members, "pgbouncer": "app=pgbouncer"} {
		pods, err := cluster.pods(t.Context(), selector)
		must(t, "pods", err)
		for _, p := range pods {
			cmd := cluster.KubectlCommand(
				context.Background(),
				"logs",
				"--follow",
				"--timestamps",
				"--since=1s",
				"--container",
				kind,
				p.Metadata.Name,
			)
			said := &bytes.Buffer{}
			f.said[p.Metadata.Name+" "+kind], cmd.Stdout = said, said
			must(t, "logs", cmd.Start())
			f.programs = append(f.programs, cmd)
		}
	}
	return f
}

func (f *followed) end() {
	for _, cmd := range f.programs {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	f.programs = nil
}

// lines ends it. A member's container says what Patroni and what PostgreSQL says.
func (f *followed) lines() (lines []seen.Line) {
	f.end()
	for source, said := range f.said {
		for text := bufio.NewScanner(said); text.Scan(); {
			stamp, rest, _ := strings.Cut(text.Text(), " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err != nil {
				continue
			}
			l := seen.Line{At: at.UTC(), Source: source, Text: rest}
			if pod, ok := strings.CutSuffix(source, " patroni"); ok && strings.Contains(rest, " UTC [") {
				l.Source = pod + " postgresql"
			}
			lines = append(lines, l)
		}
	}
	return lines
}

// TestDemo is make demo-kube: a switchover and the deletion of the primary's pod, with all that a report needs.
func TestDemo(t *testing.T) {
	if *demoFile == "" {
		t.Skip("make demo-kube runs it")
	}
	t.Cleanup(func() { cluster.check(t) })
	d := seen.Demo{
		Versions: versions(t),
		Load:     "pgbench -c 4 -j 4, and 8 connections that write every 10 ms, in pods, through the poolers' Service",
	}
	l := startLoad(t)
	for _, event := range []struct {
		name string
		do   func(leader string)
	}{
		{"switchover", func(leader string) {
			out, err := cluster.patronictl(t.Context(), "switchover", "--force")
			must(t, out, err)
			another(t, leader)
		}},
		{"pod's deletion", func(leader string) {
			out, err := cluster.Kubectl(t.Context(), "", "delete", "pod", leader)
			must(t, out, err)
		}},
	} {
		time.Sleep(3 * time.Second) // what the plot shows as normal
		leader, err := cluster.leader(t.Context())
		must(t, leader, err)
		logs := followLogs(t)
		e := seen.Event{Name: event.name, From: leader, Asked: time.Now()}
		event.do(leader)
		must(t, "whole", cluster.whole(t.Context()))
		e.To, err = cluster.leader(t.Context())
		must(t, e.To, err)
		time.Sleep(3 * time.Second)
		e.Ended, e.Lines = time.Now(), logs.lines()
		d.Events = append(d.Events, e)
	}
	d.Clients = l.stop(false)
	text, err := json.Marshal(d)
	must(t, "demo", err)
	must(t, *demoFile, os.WriteFile(*demoFile, text, 0o644))
}

// versions are of what runs there.
func versions(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	leader, err := cluster.leader(t.Context())
	must(t, leader, err)
	for name, command := range map[string][]string{
		"Patroni":    {"patroni", "--version"},
		"PostgreSQL": {"psql", "--version"},
		"PgBouncer":  {"pgbouncer", "--version"},
	} {
		out, err := cluster.Kubectl(t.Context(), "", append([]string{"exec", leader, "--container", "patroni", "--"}, command...)...)
		must(t, out, err)
		for _, word := range strings.Fields(strings.SplitN(out, "\n", 2)[0]) {
			if word[0] >= '0' && word[0] <= '9' {
				found[name] = word
				break
			}
		}
	}
	out, err := cluster.Kubectl(t.Context(), "", "get", "nodes", "--output", "jsonpath={.items[0].status.nodeInfo.kubeletVersion}")
	must(t, out, err)
	found["Kubernetes"] = strings.TrimPrefix(out, "v")
	return found
}
