package main

import (
	"errors"
	"flag"
	"syscall"
)

// received is the report of bulk.
type received struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Least   int64   `json:"least"` // of the stream that received the fewest
}

// bulk has the kernel discard received bytes (MSG_TRUNC), so that this end costs almost nothing.
func bulk(flags *flag.FlagSet) func() (any, error) {
	to := toFlag(flags)
	streams := flags.Int("streams", 1, "connections")
	seconds := flags.Float64("seconds", 1, "how long")
	return func() (any, error) {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		counts := map[int]int64{}
		for range *streams {
			fd, err := dial(to)
			if err != nil {
				return nil, err
			}
			counts[fd] = -1
			p.add(fd, out)
		}
		var scrap [1]byte
		start := now()
		end := start + int64(*seconds*1e9)
		for now() < end {
			for _, event := range p.wait(10) {
				fd := int(event.Fd)
				if counts[fd] < 0 {
					if _, err := syscall.Write(fd, []byte("G")); err != nil {
						return nil, err
					}
					counts[fd] = 0
					p.modify(fd, in)
					continue
				}
				count, err := discard(fd, &scrap)
				if err == syscall.EAGAIN {
					continue
				}
				if err != nil {
					return nil, err
				}
				if count == 0 {
					return nil, errors.New("the stream ended")
				}
				counts[fd] += int64(count)
			}
		}
		result := received{Seconds: float64(now()-start) / 1e9, Least: 1 << 62}
		for _, count := range counts {
			result.Bytes += max(count, 0)
			result.Least = min(result.Least, count)
		}
		return result, nil
	}
}
