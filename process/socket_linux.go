package process

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSocketTable bounds what is read of one of the kernel's tables of TCP connections: 150 bytes a connection, 400,000 of them.
const maxSocketTable = 64 << 20

// HoldsOtherEnd reports whether the process has the other end of a TCP connection of ours open. It tells which process of this host we
// talk to, whatever that says of itself: the kernel's tables name the socket at the other end, and the process has it among its
// descriptors. It needs the right to look into the process (the same user, or root), and both ends in our network namespace. It does not
// block.
func (p *Process) HoldsOtherEnd(c net.Conn) (bool, error) {
	ours, ok1 := addressOf(c.LocalAddr())
	theirs, ok2 := addressOf(c.RemoteAddr())
	if !ok1 || !ok2 {
		return false, fmt.Errorf("process %d: not a TCP connection: %T", p.PID, c)
	}
	inode, err := socketBetween(theirs, ours)
	if err != nil {
		return false, fmt.Errorf("process %d: %w", p.PID, err)
	}
	return p.hasOpen("socket:[" + inode + "]")
}

// Listeners counts the sockets of this network namespace that listen for connections to an address: those of that very address, which
// take them all where there are any, else those of every address. With SO_REUSEPORT there is one for each process; otherwise there is
// one, or none. It does not block.
func Listeners(to netip.AddrPort) (int, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
	exact, every := 0, map[bool]int{} // by whether they are IPv6
	for _, table := range tcpTables {
		file, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return 0, err
		}
		const listening = "0A"
		lines := bufio.NewScanner(io.LimitReader(file, maxSocketTable))
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 4 || fields[3] != listening {
				continue
			}
			at, ok := tableAddress(fields[1])
			switch {
			case !ok || at.Port() != to.Port():
			case at.Addr() == to.Addr():
				exact++
			case at.Addr().IsUnspecified():
				every[at.Addr().Is6()]++
			}
		}
		_ = file.Close()
		if err := lines.Err(); err != nil {
			return 0, err
		}
	}
	switch {
	case exact > 0:
		return exact, nil
	case every[to.Addr().Is6()] > 0:
		return every[to.Addr().Is6()], nil
	}
	return every[true], nil // a socket of both families
}

// tcpTables are the kernel's; an IPv4 connection to a server that listens on :: stands in the one of IPv6.
var tcpTables = []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"}

func addressOf(a net.Addr) (netip.AddrPort, bool) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp == nil {
		return netip.AddrPort{}, false
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port()), at.IsValid()
}

// socketBetween is the inode of the established socket that has these addresses.
func socketBetween(local, remote netip.AddrPort) (inode string, err error) {
	for _, table := range tcpTables {
		file, err := os.Open(table)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return "", err
		}
		inode, err := findSocket(io.LimitReader(file, maxSocketTable), local, remote)
		_ = file.Close()
		if inode != "" || err != nil {
			return inode, err
		}
	}
	return "", fmt.Errorf("no socket of this host has the other end of the connection to %s", local)
}

// findSocket reads a table as in proc_net(5): sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode.
func findSocket(table io.Reader, local, remote netip.AddrPort) (inode string, err error) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		a, ok1 := tableAddress(fields[1])
		b, ok2 := tableAddress(fields[2])
		if ok1 && ok2 && a == local && b == remote && fields[9] != "0" {
			return fields[9], nil
		}
	}
	return "", lines.Err()
}

// tableAddress reads "0100007F:1538": the address as words in this machine's byte order.
func tableAddress(text string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range len(raw) / 4 {
		w := raw[4*word : 4*word+4]
		binary.NativeEndian.PutUint32(w, binary.BigEndian.Uint32(w))
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ok
}

// hasOpen reports whether one of the process's descriptors leads to what the kernel calls so.
func (p *Process) hasOpen(target string) (bool, error) {
	path := fmt.Sprintf("/proc/%d/fd", p.PID)
	dir, err := os.Open(path)
	if err != nil {
		return false, p.failed(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, p.failed(err)
	}
	buffer := make([]byte, 128)
	for _, name := range names {
		n, err := unix.Readlinkat(int(dir.Fd()), name, buffer)
		if err == nil && string(buffer[:n]) == target {
			if p.Ended() {
				return false, p.failed(nil)
			}
			return true, nil
		}
	}
	return false, nil
}
