package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a pseudo terminal of the kernel, and what a person in front of it would see.
type screen struct {
	t      *testing.T
	master *os.File
	slave  *os.File // what a program writes to and reads from

	mu   sync.Mutex
	said strings.Builder
	gone chan struct{} // everything was read, and the other end is closed
}

func openScreen(t *testing.T, columns, rows int) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine gives out no pseudo terminals: %v", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(columns), Row: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	x := &screen{t: t, master: master, slave: slave, gone: make(chan struct{})}
	go func() {
		defer close(x.gone)
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			x.mu.Lock()
			x.said.Write(buffer[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { x.close() })
	return x
}

// close hangs up the program's end, and waits until everything was read.
func (x *screen) close() {
	_ = x.slave.Close()
	<-x.gone
	_ = x.master.Close()
}

func (x *screen) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown()
}

// until waits for something to be on the screen.
func (x *screen) until(what string) {
	x.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(x.text(), what) {
		if time.Now().After(deadline) {
			x.t.Fatalf("not within 20 s on the screen: %q\n%s", what, x.text())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// shown is what was said, as a terminal shows it: the program moves up, erases below, and goes to the beginning of the line. Anything
// else it may not do.
func (x *screen) shown() string {
	lines := []string{""}
	row := 0
	column := 0
	put := func(r rune) {
		line := []rune(lines[row])
		for len(line) <= column {
			line = append(line, ' ')
		}
		line[column] = r
		lines[row] = string(line)
		column++
	}
	text := []rune(x.said.String())
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\r':
			column = 0
		case '\n':
			row++
			if row == len(lines) {
				lines = append(lines, "")
			}
		case '\x1b':
			end := i + 1
			for end < len(text) && !strings.ContainsRune("ABCDHJKmlh", text[end]) {
				end++
			}
			if end == len(text) {
				i = end // not all of it is here yet
				break
			}
			n := 0
			_, _ = fmt.Sscanf(string(text[i+2:end]), "%d", &n)
			switch text[end] {
			case 'A':
				row = max(0, row-n)
			case 'J':
				lines = append(lines[:row:row], string([]rune(lines[row])[:min(column, len([]rune(lines[row])))]))
			default:
				x.t.Errorf("the program sends %q", string(text[i:end+1]))
			}
			i = end
		default:
			put(text[i])
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}
