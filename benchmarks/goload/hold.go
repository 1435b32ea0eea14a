package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"os"
	"syscall"
)

const (
	// The number of concurrent dials: well below any accept queue.
	dialling = 128
	// Nanoseconds without progress after which the opened connections have to suffice.
	stuckAfter = 5e9
)

type held struct {
	Held   int `json:"held"`
	Failed int `json:"failed"`
}

// holder holds connections that have been used once.
type holder struct {
	to     *address
	poller *poller
	first  []byte // the first message on each connection
	answer int    // the number of bytes of its answer
	open   []int
	buffer [4096]byte
}

// hold opens connections, uses each once, and reports. Then, for each line on stdin, it exchanges
// messages, a few at a time, over all connections in turn, and reports.
func hold(flags *flag.FlagSet) func() (any, error) {
	to := toFlag(flags)
	connections := flags.Int("connections", 1000, "how many")
	parallel := flags.Int("parallel", 64, "messages at a time")
	seconds := flags.Float64("seconds", 1, "how long the messages go on")
	return func() (any, error) {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		h := &holder{to: to, poller: p, first: []byte("?")}
		reports := json.NewEncoder(os.Stdout)
		_ = reports.Encode(held{h.fill(*connections), *connections - len(h.open)})
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			_ = reports.Encode(h.talk(min(*parallel, len(h.open)), *seconds))
		}
		return "closed", nil
	}
}

// fill opens the connections; it returns the number of open ones.
func (h *holder) fill(wanted int) int {
	dialled, asked := 0, map[int]bool{}
	progress := now()
	for (dialled < wanted || len(asked) > 0) && now()-progress < stuckAfter {
		for dialled < wanted && len(asked) < dialling {
			dialled++
			if fd, err := dial(h.to); err == nil {
				asked[fd] = false
				h.poller.add(fd, out)
			}
		}
		for _, event := range h.poller.wait(10) {
			fd := int(event.Fd)
			if !asked[fd] {
				if _, err := syscall.Write(fd, h.first); err == nil {
					asked[fd] = true
					h.poller.modify(fd, in)
					continue
				}
			} else if count, err := syscall.Read(fd, h.buffer[:]); err == nil && count > 0 {
				h.open = append(h.open, fd)
				h.answer = count
				progress = now()
				delete(asked, fd)
				continue
			}
			delete(asked, fd)
			syscall.Close(fd)
		}
	}
	return len(h.open)
}

// talk keeps this many messages in flight; a connection is used again after all others.
func (h *holder) talk(parallel int, seconds float64) timings {
	var payload [64]byte
	sent := map[int]int64{}
	took := make([]int64, 0, 1<<20)
	turn, failed := 0, 0
	start := now()
	end := start + int64(seconds*1e9)
	for now() < end {
		for len(sent) < parallel {
			fd := h.open[turn]
			turn = (turn + 1) % len(h.open)
			if _, busy := sent[fd]; busy {
				break
			}
			sent[fd] = now()
			if _, err := syscall.Write(fd, payload[:]); err != nil {
				failed++
			}
		}
		for _, event := range h.poller.wait(10) {
			fd := int(event.Fd)
			count, err := syscall.Read(fd, h.buffer[:])
			if err == syscall.EAGAIN {
				continue
			}
			if err != nil || count == 0 {
				failed++
				h.poller.modify(fd, 0)
				continue
			}
			if at, busy := sent[fd]; busy {
				took = append(took, now()-at)
				delete(sent, fd)
			}
		}
	}
	return summarize(took, now()-start, failed)
}
