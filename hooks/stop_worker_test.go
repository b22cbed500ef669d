package hooks

import (
	"strings"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/member/membertest"
)

func TestStopWorkerSparesOthers(t *testing.T) {
	rt := membertest.New(t, nil)
	held, err := rt.StateDir().TryLock(workerLock) // by this process, which is none
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	began := time.Now()
	stopWorker(rt)
	if took := time.Since(began); took > 400*time.Millisecond {
		t.Errorf("took %s", took)
	}
}

func TestIsPatroni(t *testing.T) {
	for argv, want := range map[string]bool{
		"/usr/bin/python3 /usr/bin/patroni /etc/patroni/config.yml": true, // Debian
		"python3 -m patroni /etc/patroni.yml":                       true,
		"/usr/bin/python3 /usr/local/bin/patroni /p.yml":            true, // Spilo
		"/usr/bin/python3 -u /usr/local/bin/patroni /p.yml":         true,
		"/opt/patroni/bin/patroni /p.yml":                           true,
		"python patroni.py postgres0.yml":                           true,
		"patroni":                                                   true,
		"":                                                          false,
		"/usr/bin/python3 /usr/bin/patronictl list":                 false,
		"/usr/bin/python3 /usr/bin/patroni_aws":                     false,
		"/bin/bash /callbacks/before_stop":                          false,
		"bash":                                                      false,
		"/sbin/init":                                                false,
		"vim /etc/patroni/patroni.yml":                              false,
		// A person whose user, or whose file, has the name.
		"su - patroni":               false,
		"sudo -u patroni bash":       false,
		"tail -f /var/log/patroni":   false,
		"runuser -u patroni -- bash": false,
	} {
		if got := isPatroni(strings.Split(argv, " ")); got != want {
			t.Errorf("%q: %v", argv, got)
		}
	}
	if calledByPatroni() {
		t.Error("the test is not called by Patroni")
	}
}
