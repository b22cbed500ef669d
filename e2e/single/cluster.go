package single

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newCluster makes a database cluster in p.DataDir. initdb takes 1.5 s of processor time, a hundred times in a run of the unit tests, and
// whoever measures beside it is disturbed: it runs once for a root, and what it has made is copied, with a system identifier of its own.
func (p *Postgres) newCluster(ctx context.Context) error {
	made, err := p.template(ctx)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", made, p.DataDir).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return identify(p.DataDir, uint64(time.Now().Unix())<<32|uint64(rand.Uint32()))
}

// template is the folder that initdb has made from the programs that are in the root now; another process may make it meanwhile.
func (p *Postgres) template(ctx context.Context) (string, error) {
	program, err := os.Stat(filepath.Join(p.root, "usr/local/pgbin/postgres"))
	if err != nil {
		return "", err
	}
	made := fmt.Sprintf("%s.pgdata-%x-%x", p.root, program.Size(), program.ModTime().Unix())
	lock, err := os.OpenFile(p.root+".pgdata.lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(made); err == nil {
		return made, nil
	}
	pwfile := filepath.Join(p.Dir, "pw")
	if err := write(p.root, pwfile, Password+"\n", 0o600); err != nil {
		return "", err
	}
	dir := filepath.Join(p.Dir, "template")
	initdb, err := spawn(p.root, p.Dir, "postgres", p.Log, false, "/usr/local/pgbin/initdb", "-D", dir, "--no-sync", "--auth-local=trust",
		"--auth-host=scram-sha-256", "--pwfile="+pwfile, "-U", "postgres", "--locale=C.UTF-8", "--encoding=UTF8")
	if err != nil {
		return "", err
	}
	select {
	case <-initdb.exited:
	case <-ctx.Done():
		initdb.end(syscall.SIGKILL, time.Second)
		return "", ctx.Err()
	}
	if _, err := os.Stat(filepath.Join(dir, "postgresql.conf")); err != nil {
		return "", fmt.Errorf("initdb made nothing: %w\n%s", err, tail(p.Log))
	}
	old, err := filepath.Glob(p.root + ".pgdata-*")
	if err != nil {
		return "", err
	}
	for _, dir := range old { // of other programs, or half of a copy
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", dir, made+".new").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cp: %w: %s", err, out)
	}
	return made, errors.Join(os.RemoveAll(dir), os.Rename(made+".new", made))
}

// identify gives a cluster that has never been started another system identifier: it stands at the beginning of pg_control, whose CRC-32C
// stands behind what it covers, and in the first header of the first WAL file (XLogLongPageHeaderData; PostgreSQL 17 and 18).
func identify(dataDir string, id uint64) error {
	path := filepath.Join(dataDir, "global/pg_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const least, most = 200, 512 // sizeof(ControlFileData) is 288 and 296
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for end := least; end < min(most, len(control)-4); end += 4 {
		if crc32.Checksum(control[:end], castagnoli) != binary.NativeEndian.Uint32(control[end:]) {
			continue
		}
		wal, err := os.OpenFile(filepath.Join(dataDir, "pg_wal/000000010000000000000001"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		const walID = 24 // behind XLogPageHeaderData
		was := make([]byte, 8)
		if _, err := wal.ReadAt(was, walID); err != nil || [8]byte(was) != [8]byte(control) {
			return errors.Join(fmt.Errorf("the first WAL file of %s has another system identifier", dataDir), err, wal.Close())
		}
		binary.NativeEndian.PutUint64(control, id)
		binary.NativeEndian.PutUint32(control[end:], crc32.Checksum(control[:end], castagnoli))
		_, err = wal.WriteAt(control[:8], walID)
		return errors.Join(err, wal.Close(), os.WriteFile(path, control, 0o600))
	}
	return fmt.Errorf("%s: no checksum found", path)
}
