package main

import (
	"flag"
	"fmt"
	"syscall"
)

const (
	// Nanoseconds to wait for answers after the last request was due.
	graceful = 2e9
	longest  = 10e6
)

var keepAliveRequest = []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")

// scheduled is the report of open; Count includes requests with errors.
type scheduled struct {
	timings
	Late int `json:"late"`
}

// open sends requests at a fixed rate, regardless of earlier requests.
func open(flags *flag.FlagSet) func() (any, error) {
	to := toFlag(flags)
	connections := flags.Int("connections", 64, "at most as many requests are under way")
	rate := flags.Float64("rate", 1000, "requests a second")
	seconds := flags.Float64("seconds", 1, "how long")
	return func() (any, error) {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		h := &holder{to: to, poller: p, first: keepAliveRequest}
		if opened := h.fill(*connections); opened < *connections {
			return nil, fmt.Errorf("opened %d connections of %d", opened, *connections)
		}
		wakePrecisely()
		s := newSchedule(*rate, *seconds, *connections)
		start := now()
		h.keep(s, start, start+int64(*seconds*1e9+graceful))
		elapsed := now() - start
		s.giveUp(elapsed)
		return scheduled{summarize(s.took, elapsed, s.failed), s.late}, nil
	}
}

// keep sends due requests and reads answers until all have arrived, or until the deadline.
func (h *holder) keep(s *schedule, start, deadline int64) {
	places := make(map[int]int, len(h.open))
	for place, fd := range h.open {
		places[fd] = place
	}
	missing := make([]int, len(h.open))
	for !s.done() && now() < deadline {
		for place := s.send(now() - start); place >= 0; place = s.send(now() - start) {
			missing[place] = h.answer
			if _, err := syscall.Write(h.open[place], keepAliveRequest); err != nil {
				s.lost(place, now()-start)
			}
		}
		for _, event := range h.poller.waitFor(s.pause(now()-start, longest)) {
			fd := int(event.Fd)
			place := places[fd]
			count, err := syscall.Read(fd, h.buffer[:])
			if err == syscall.EAGAIN {
				continue
			}
			missing[place] -= count
			switch {
			case err != nil || count == 0 || missing[place] < 0:
				h.poller.remove(fd)
				s.lost(place, now()-start)
			case missing[place] == 0:
				s.answered(place, now()-start)
			}
		}
	}
}
