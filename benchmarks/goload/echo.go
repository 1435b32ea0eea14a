package main

import (
	"flag"
	"fmt"
	"os"
	"syscall"
)

// exchange is one connection: dialled, asked, answered, closed.
type exchange struct {
	started int64
	missing int
	asked   bool
}

type echoClient struct {
	to      *address
	poller  *poller
	payload []byte
	buffer  [4096]byte
	open    map[int]*exchange
	spare   []*exchange
	took    []int64
	failed  int
}

func echo(flags *flag.FlagSet) func() (any, error) {
	to := toFlag(flags)
	parallel := flags.Int("parallel", 32, "connections at a time")
	seconds := flags.Float64("seconds", 1, "how long")
	size := flags.Int("bytes", 64, "of one message")
	settle := flags.Float64("settle", 0, "seconds before that in which nothing is counted")
	return func() (any, error) {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		c := &echoClient{
			to: to, poller: p, payload: make([]byte, *size),
			open: map[int]*exchange{}, took: make([]int64, 0, 1<<20),
		}
		for range *parallel {
			c.spare = append(c.spare, &exchange{})
		}
		start := now() + int64(*settle*1e9)
		end := start + int64(*seconds*1e9)
		settled := *settle == 0
		for now() < end {
			if !settled && now() >= start {
				settled = true
				c.took, c.failed = c.took[:0], 0
			}
			for count := len(c.spare); count > 0; count-- {
				c.begin()
			}
			for _, event := range p.wait(10) {
				c.handle(int(event.Fd), event.Events)
			}
		}
		return summarize(c.took, now()-start, c.failed), nil
	}
}

func (c *echoClient) begin() {
	fd, err := dial(c.to)
	if err != nil {
		c.failed++
		return
	}
	e := c.spare[len(c.spare)-1]
	c.spare = c.spare[:len(c.spare)-1]
	*e = exchange{started: now(), missing: len(c.payload)}
	c.open[fd] = e
	c.poller.add(fd, in|out|edge)
}

func (c *echoClient) handle(fd int, events uint32) {
	e := c.open[fd]
	if e == nil {
		return
	}
	if !e.asked && events&out != 0 {
		if _, err := syscall.Write(fd, c.payload); err != nil {
			c.fail(fd, e, "write", err)
			return
		}
		e.asked = true
	}
	if events&in != 0 && e.asked {
		for e.missing > 0 {
			count, err := syscall.Read(fd, c.buffer[:])
			if err == syscall.EAGAIN {
				return
			}
			if err != nil || count == 0 {
				c.fail(fd, e, "read", err)
				return
			}
			e.missing -= count
			if e.missing == 0 {
				c.took = append(c.took, now()-e.started)
				c.finish(fd, e)
				return
			}
		}
	}
	if events&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		number, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		c.fail(fd, e, "connect", syscall.Errno(number))
	}
}

func (c *echoClient) finish(fd int, e *exchange) {
	syscall.Close(fd)
	delete(c.open, fd)
	c.spare = append(c.spare, e)
}

// fail says on stderr how the first one failed, and counts the rest.
func (c *echoClient) fail(fd int, e *exchange, where string, err error) {
	if c.failed == 0 {
		fmt.Fprintf(os.Stderr, "goload: %s after %.1f ms: %v\n", where, float64(now()-e.started)/1e6, err)
	}
	c.failed++
	c.finish(fd, e)
}
