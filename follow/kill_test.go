package follow_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgbaton/pgbaton/e2e/single"
	"github.com/pgbaton/pgbaton/file"
	"github.com/pgbaton/pgbaton/follow"
	"github.com/pgbaton/pgbaton/member"
	"github.com/pgbaton/pgbaton/member/membertest"
	"github.com/pgbaton/pgbaton/pgb"
	"github.com/pgbaton/pgbaton/pgb/pgbini"
)

// Where the child of TestMoveKilled leads the pooler, in turn.
var toAndFro = []pgbini.Address{{Host: "127.0.0.9", Port: 1}, {Host: "127.0.0.10", Port: 2}}

// moveOn moves the pooler to and fro, until it is killed.
func moveOn(ctx context.Context, m *member.Member, _ io.Reader, out io.Writer) int {
	poolers, _, errs := m.Poolers(ctx, nil)
	if len(errs) > 0 {
		fmt.Fprintln(out, errs)
		return member.Failed
	}
	v := follow.New(m, poolers[0])
	for i := 0; ; i++ {
		if _, err := v.Move(ctx, toAndFro[i%2]); err != nil {
			fmt.Fprintln(out, err)
			return member.Failed
		}
		fmt.Fprintln(out, "moved")
	}
}

// A process that moves a pooler is killed at any moment of it: the file is whole, it is one of the two, the pause stands, and the next one
// can do its work at once.
func TestMoveKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.SuiteTrixie, membertest.SharedPostgres(t))
	v := n.mover(t)
	membertest.Tell(t, n.Member)
	if _, _, err := v.Mark(t.Context(), pgb.Guard, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	var whole []string
	for _, to := range toAndFro {
		if _, err := v.Move(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		whole = append(whole, n.text(t))
	}
	if _, err := v.Move(t.Context(), v.Local()); err != nil {
		t.Fatal(err)
	}
	unmoved := n.text(t)
	for range 15 {
		child := exec.Command(n.Self[0], append(n.Self[1:], "_move")...)
		said, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(said).ReadString('\n')
		time.Sleep(rand.N(30 * time.Millisecond)) // at any moment
		_ = child.Process.Kill()
		_ = child.Wait()
		if line != "moved\n" {
			t.Fatalf("the child: %s", line)
		}
		if got := n.text(t); got != whole[0] && got != whole[1] {
			t.Fatalf("the file is\n%s", got)
		}
		if s, err := v.State(t.Context()); err != nil || s.NotPaused() {
			t.Fatalf("the pause does not stand: %+v, %v", s, err)
		}
		if _, err := v.Move(t.Context(), v.Local()); err != nil {
			t.Fatal(err)
		}
		if got := leads(t, v.Pooler)["postgres"]; got != v.Local() || n.text(t) != unmoved {
			t.Fatalf("it leads to %v:\n%s", got, n.text(t))
		}
		if left, _ := filepath.Glob(n.file + ".new"); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
	}
}

// On a disk that is full nothing is moved: the file is whole, the pooler leads where it led, and the pause and its mark stand.
func TestMoveDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a file system")
	}
	t.Parallel()
	n := newNode(t, single.SuiteHost, membertest.SharedPostgres(t))
	dir := filepath.Join(n.pooler.Dir, "full")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount: %v %s", err, out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	text := n.text(t)
	config, err := n.pooler.Config()
	if err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(dir, "databases.ini")
	if err := n.pooler.RewriteConfig(strings.Replace(config, n.file, full, 1)); err != nil {
		t.Fatal(err)
	}
	n.file, n.Config.Poolers[0].Follow.File = full, full
	n.write(t, n.file, text)
	v := n.mover(t)
	if _, _, err := v.Mark(t.Context(), pgb.Guard, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	to := toAndFro[0]
	var problem *file.Problem
	if moved, err := v.Move(t.Context(), to); moved || !errors.As(err, &problem) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("moved %v: %v", moved, err)
	}
	if got := leads(t, v.Pooler)["postgres"]; got != v.Local() || n.text(t) != text {
		t.Errorf("it leads to %v:\n%s", got, n.text(t))
	}
	mark, err := v.Holder(t.Context())
	if err != nil || mark == nil || mark.Owner != pgb.Guard || mark.Nonce != 5 {
		t.Errorf("the mark is %+v, %v", mark, err)
	}
}
