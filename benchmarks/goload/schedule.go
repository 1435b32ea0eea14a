package main

// A request is late if it was sent this many nanoseconds after it could have been sent, because the
// thread of this program was busy, or waited for a core.
const lateAfter = 100e3

// schedule decides when each request is sent, and records its latency. It opens no socket and reads
// no clock: times are nanoseconds since its start.
//
// A request is due at a time that depends only on the rate, and its latency counts from that time,
// even while it waits for a connection: a slow answer doesn't prevent other requests from being
// measured (coordinated omission). If no connection is idle, requests wait for one in order. Only
// this program's own delay, from when a request could be sent until it is sent, doesn't count.
type schedule struct {
	interval float64 // between two requests
	total    int
	next     int           // the number of the next request
	idle     []int         // connections without a request, the longest idle first
	since    []int64       // when each connection became idle
	asked    map[int]int64 // the time from which on the request in flight counts
	took     []int64
	late     int
	failed   int
}

// newSchedule returns a schedule with idle connections.
func newSchedule(rate, seconds float64, connections int) *schedule {
	s := &schedule{
		interval: 1e9 / rate, total: int(rate * seconds),
		since: make([]int64, connections), asked: make(map[int]int64, connections),
	}
	s.took = make([]int64, 0, s.total)
	for connection := range connections {
		s.idle = append(s.idle, connection)
	}
	return s
}

// due returns the time at which the next request is due.
func (s *schedule) due() int64 { return int64(float64(s.next) * s.interval) }

// send returns the connection on which a request must be sent now; -1: none.
func (s *schedule) send(now int64) int {
	if s.next == s.total || len(s.idle) == 0 || now < s.due() {
		return -1
	}
	connection := s.idle[0]
	s.idle = s.idle[1:]
	own := now - max(s.due(), s.since[connection])
	if own > lateAfter {
		s.late++
	}
	s.asked[connection] = s.due() + own
	s.next++
	return connection
}

// pause returns the time without anything to send, unless an answer arrives earlier.
func (s *schedule) pause(now, longest int64) int64 {
	if s.next == s.total || len(s.idle) == 0 {
		return longest
	}
	return min(longest, max(0, s.due()-now))
}

// answered makes the connection idle again.
func (s *schedule) answered(connection int, now int64) {
	s.end(connection, now)
	s.idle = append(s.idle, connection)
	s.since[connection] = now
}

// lost removes a connection that has failed; its request, if any, has failed, too.
func (s *schedule) lost(connection int, now int64) {
	if _, busy := s.asked[connection]; busy {
		s.failed++
		s.end(connection, now)
	}
	for place, other := range s.idle {
		if other == connection {
			s.idle = append(s.idle[:place], s.idle[place+1:]...)
			break
		}
	}
}

// giveUp ends the run: requests without an answer have failed, and took until now.
func (s *schedule) giveUp(now int64) {
	for connection := range s.asked {
		s.lost(connection, now)
	}
	for ; s.next < s.total; s.next++ {
		s.failed++
		s.took = append(s.took, now-s.due())
	}
}

// done returns whether every request was answered or has failed.
func (s *schedule) done() bool { return len(s.took) == s.total }

func (s *schedule) end(connection int, now int64) {
	s.took = append(s.took, now-s.asked[connection])
	delete(s.asked, connection)
}
