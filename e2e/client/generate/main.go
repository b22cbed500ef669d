// Generate writes the package api: a client, generated from the document that pgbaton serve hands out.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/pgbaton/pgbaton/e2e/client/serve"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := generate(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "pgbaton-client-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The document needs nothing behind the server.
	server, err := serve.Start(ctx, "../..", dir, "serve: {listen: \"127.0.0.1:0\"}\nstate_dir: "+dir+"\n")
	if err != nil {
		return err
	}
	defer server.Stop()
	document, err := fetch(ctx, server.URL+"/openapi.json")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "openapi.json")
	if err := os.WriteFile(path, document, 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll("api", 0o755); err != nil {
		return err
	}
	// Made first: what go says on the way, of modules that it has to fetch, is no word of the tool's.
	tool := filepath.Join(dir, "oapi-codegen")
	build := exec.CommandContext(ctx, "go", "build", "-o", tool, "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build oapi-codegen: %w", err)
	}
	run := exec.CommandContext(ctx, tool, "-generate", "types,client", "-package", "api", "-o", "api/api.gen.go", path)
	if out, err := run.CombinedOutput(); err != nil || len(out) > 0 {
		// What it warns of is a fault of the document.
		return fmt.Errorf("oapi-codegen: %v\n%s", err, out)
	}
	return nil
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, 4<<20))
}
