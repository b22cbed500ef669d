package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgbaton/pgbaton/config"
)

func TestReadPatroniHooks(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10.yml": "scope: demo\npostgresql:\n  before_stop: /callbacks/before_stop\n  callbacks: {on_start: /old, on_stop: " +
			"/callbacks/on_role_change}\n",
		"20.yaml":   "postgresql:\n  callbacks:\n    on_start: /callbacks/on_role_change\n    before_stop: /elsewhere\n",
		"30.json":   "not read",
		"bare.conf": "postgresql: {authentication: {superuser: {password: s3cret}}}\n",
		"bad.conf":  "postgresql: {authentication: {superuser: {password: s3cret}}\n\tx",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path string
		want config.PatroniHooks
	}{
		{"", config.PatroniHooks{BeforeStop: "/callbacks/before_stop",
			Callbacks: map[string]string{"on_start": "/callbacks/on_role_change", "on_stop": "/callbacks/on_role_change",
				"before_stop": "/elsewhere"}}},
		{"bare.conf", config.PatroniHooks{}},
	} {
		got, err := config.ReadPatroniHooks(filepath.Join(dir, c.path))
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", c.path, err, diff)
		}
	}
	for _, name := range []string{"bad.conf", "none.yml"} {
		if _, err := config.ReadPatroniHooks(filepath.Join(dir, name)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
