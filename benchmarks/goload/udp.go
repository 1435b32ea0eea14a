package main

import (
	"encoding/binary"
	"flag"
	"syscall"
)

// A lost datagram is sent again after this many nanoseconds; the exchange also counts as an error.
const lostAfter = 100e6

// asker is a socket with one datagram in flight.
type asker struct {
	fd     int
	number uint64
	sent   int64
}

func udp(flags *flag.FlagSet) func() (any, error) {
	to := toFlag(flags)
	sockets := flags.Int("sockets", 1, "with one datagram in flight each")
	seconds := flags.Float64("seconds", 1, "how long")
	size := flags.Int("bytes", 64, "of one datagram")
	return func() (any, error) {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		payload := make([]byte, max(*size, 8))
		send := func(a *asker) {
			a.number++
			a.sent = now()
			binary.BigEndian.PutUint64(payload, a.number)
			_, _ = syscall.Write(a.fd, payload)
		}
		askers := map[int]*asker{}
		for range *sockets {
			fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK, 0)
			if err != nil {
				return nil, err
			}
			if err := syscall.Connect(fd, &to.SockaddrInet4); err != nil {
				return nil, err
			}
			askers[fd] = &asker{fd: fd}
			p.add(fd, in)
		}
		var buffer [65536]byte
		took := make([]int64, 0, 1<<20)
		failed := 0
		start := now()
		end := start + int64(*seconds*1e9)
		for _, a := range askers {
			send(a)
		}
		checked := start
		for now() < end {
			for _, event := range p.wait(10) {
				a := askers[int(event.Fd)]
				count, err := syscall.Read(a.fd, buffer[:])
				if err != nil || count < 8 || binary.BigEndian.Uint64(buffer[:]) != a.number {
					continue
				}
				took = append(took, now()-a.sent)
				send(a)
			}
			if at := now(); at-checked > lostAfter/2 {
				checked = at
				for _, a := range askers {
					if at-a.sent > lostAfter {
						failed++
						send(a)
					}
				}
			}
		}
		return summarize(took, now()-start, failed), nil
	}
}
