package main

// A request that was sent this many nanoseconds later than it could have been is late: the thread
// of this program was busy, or waited for a core.
const lateAfter = 100e3

// schedule is what is sent when, and what each request took. It opens no socket and reads no
// clock: times are nanoseconds since its beginning.
//
// A request is due at a time that depends on nothing but the rate, and what it took counts from
// then on, also while it waits for a connection: a slow answer doesn't keep others from being
// measured (coordinated omission). If no connection is idle, requests wait for one in their order.
// Only this program's own delay doesn't count: from when a request could be sent until it is sent.
type schedule struct {
	interval float64 // between two requests
	total    int
	next     int           // the request that is sent next
	idle     []int         // connections without a request; the longest idle comes first
	since    []int64       // when each connection became idle
	asked    map[int]int64 // from when on the request under way counts
	took     []int64
	late     int
	failed   int
}

// newSchedule has all connections idle.
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

// due is when the next request is to be sent.
func (s *schedule) due() int64 { return int64(float64(s.next) * s.interval) }

// send returns the connection on which a request has to be sent now; -1: none.
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

// pause returns how long there is nothing to send; at most until there is an answer.
func (s *schedule) pause(now, longest int64) int64 {
	if s.next == s.total || len(s.idle) == 0 {
		return longest
	}
	return min(longest, max(0, s.due()-now))
}

// answered has the connection idle again.
func (s *schedule) answered(connection int, now int64) {
	s.end(connection, now)
	s.idle = append(s.idle, connection)
	s.since[connection] = now
}

// lost takes a connection that has failed out of use; its request, if it has one, has failed.
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

// giveUp ends the run: what has no answer, or was never sent, has failed, and took until now.
func (s *schedule) giveUp(now int64) {
	for connection := range s.asked {
		s.lost(connection, now)
	}
	for ; s.next < s.total; s.next++ {
		s.failed++
		s.took = append(s.took, now-s.due())
	}
}

// done tells whether every request was answered or has failed.
func (s *schedule) done() bool { return len(s.took) == s.total }

func (s *schedule) end(connection int, now int64) {
	s.took = append(s.took, now-s.asked[connection])
	delete(s.asked, connection)
}
