package process

import (
	"context"
	"errors"
	"io"
	"time"
)

// Adoption is what became of a process whose parent has ended.
type Adoption struct {
	By     int  // process id of who inherited it: process 1 of the container, or a subreaper below it
	Zombie bool // it has ended, and was not reaped
}

// TryAdoption starts this program as a process that outlives us, has it end, and sees whether whoever has inherited it reaps it: the same
// that becomes of a postmaster, whose parent has ended as well. patience is how long that may take once the process has ended. self and
// args are as with [StartDetached], and must lead to [Orphan]. It blocks for some 30 ms where it is reaped, for patience more where it is
// not, and until ctx is done where the process does not end.
func TryAdoption(ctx context.Context, patience time.Duration, self []string, args ...string) (Adoption, error) {
	orphan, err := StartDetached(self, true, "", args...)
	if err != nil {
		return Adoption{}, err
	}
	p, err := Open(orphan.PID)
	if err != nil {
		_ = orphan.Stdin.Close()
		return Adoption{}, err
	}
	defer p.Close()
	var a Adoption
	a.By, err = p.Parent()
	_ = orphan.Stdin.Close() // which ends it
	if err != nil {
		return Adoption{}, err
	}
	if err := p.Wait(ctx); err != nil {
		return Adoption{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = p.Reaped(ctx)
	a.Zombie = errors.Is(err, ErrZombie)
	if a.Zombie {
		err = nil
	}
	return a, err
}

// Orphan is what the process of [TryAdoption] does: it says that it is ready and ends with its standard input.
func Orphan(in io.Reader, out io.Writer) error {
	if err := SayReady(out); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}
