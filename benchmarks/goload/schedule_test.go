package main

import (
	"slices"
	"testing"
)

const millisecond = int64(1e6)

func TestRequestsAreDueAtTheRate(t *testing.T) {
	s := newSchedule(1000, 0.003, 8)
	if got := s.send(0); got != 0 {
		t.Fatalf("the first request is on connection %d", got)
	}
	if got := s.send(millisecond - 1); got != -1 {
		t.Fatal("the second request is sent early")
	}
	if got := s.pause(millisecond/4, 10*millisecond); got != 3*millisecond/4 {
		t.Fatalf("waits for %d ns until the second one", got)
	}
	if got := s.send(millisecond); got != 1 {
		t.Fatalf("the second request is on connection %d", got)
	}
	if got := s.send(2 * millisecond); got != 2 {
		t.Fatalf("the third request is on connection %d", got)
	}
	if got := s.send(9 * millisecond); got != -1 {
		t.Fatal("there is a fourth request")
	}
	if s.late != 0 {
		t.Fatalf("%d were late", s.late)
	}
}

func TestTheRateDoesNotDrift(t *testing.T) {
	s := newSchedule(30_000, 10, 1)
	s.next = 299_997
	if got := s.due(); got != 9_999_900_000 {
		t.Fatalf("request 299,997 is due at %d ns", got)
	}
}

func TestARequestThatWaitsForASlowAnswerCountsFromWhenItWasDue(t *testing.T) {
	s := newSchedule(1000, 0.003, 1)
	s.send(0)
	if got := s.send(5 * millisecond); got != -1 {
		t.Fatal("two requests are under way on one connection")
	}
	s.answered(0, 5*millisecond)
	s.send(5 * millisecond)
	s.answered(0, 6*millisecond)
	s.send(6 * millisecond)
	s.answered(0, 7*millisecond)
	if want := []int64{5 * millisecond, 5 * millisecond, 5 * millisecond}; !slices.Equal(s.took, want) {
		t.Fatalf("they took %v", s.took)
	}
	if s.late != 0 {
		t.Fatal("waiting for an answer counts as late")
	}
	if !s.done() {
		t.Fatal("it isn't done")
	}
}

func TestARequestIsLateIfAConnectionWasIdle(t *testing.T) {
	s := newSchedule(1000, 0.004, 2)
	s.send(int64(lateAfter))
	if s.late != 0 {
		t.Fatal("late at the limit")
	}
	s.send(millisecond + int64(lateAfter) + 1)
	if s.late != 1 {
		t.Fatal("not late, though a connection was idle")
	}
	s.answered(0, 3*millisecond)
	s.send(3*millisecond + int64(lateAfter) + 1)
	if s.late != 2 {
		t.Fatal("not late, though a connection became idle")
	}
	s.answered(1, 3*millisecond)
	s.answered(0, 3*millisecond)
	own := int64(lateAfter)
	want := []int64{3*millisecond - own, 2*millisecond - own - 1, millisecond - own - 1}
	if !slices.Equal(s.took, want) {
		t.Fatalf("they took %v", s.took)
	}
}

func TestTheLongestIdleConnectionIsUsed(t *testing.T) {
	s := newSchedule(1000, 1, 2)
	s.send(0)
	s.answered(0, millisecond/2)
	for number, want := range []int{1, 0} {
		if got := s.send(int64(number+1) * millisecond); got != want {
			t.Fatalf("connection %d instead of %d", got, want)
		}
	}
}

func TestWhatIsNotAnsweredHasFailed(t *testing.T) {
	s := newSchedule(1000, 0.005, 3)
	s.send(0)
	s.send(millisecond)
	s.lost(0, 2*millisecond)
	s.lost(2, 2*millisecond)
	if got := s.send(2 * millisecond); got != -1 {
		t.Fatalf("connection %d is used, but was lost", got)
	}
	if got := s.pause(2*millisecond, 10*millisecond); got != 10*millisecond {
		t.Fatalf("waits for %d ns without an idle connection", got)
	}
	s.giveUp(10 * millisecond)
	want := []int64{2 * millisecond, 9 * millisecond, 8 * millisecond, 7 * millisecond, 6 * millisecond}
	if !slices.Equal(s.took, want) || s.failed != 5 || !s.done() {
		t.Fatalf("%d have failed, after %v", s.failed, s.took)
	}
}

func TestQuantiles(t *testing.T) {
	took := make([]int64, 2001)
	for number := range took {
		took[number] = int64(2000-number) * 1000
	}
	want := timings{Count: 2001, Seconds: 2, Errors: 3, P50us: 1000, P99us: 1980, P999us: 1998, MaxUs: 2000}
	if got := summarize(took, 2e9, 3); got != want {
		t.Fatalf("%+v", got)
	}
	if got := summarize(nil, 1e9, 0); got != (timings{Seconds: 1}) {
		t.Fatalf("%+v", got)
	}
}
