package main

import (
	"flag"
	"fmt"
	"os"
	"syscall"
)

// exchange is one connection: dialled, greeted, asked, answered, closed.
type exchange struct {
	started int64
	missing int // bytes until the end of the banner, then of the answer, then of the stream
	asked   bool
	left    bool
}

// habits are the options of exchanges.
type habits struct {
	writes int  // the number of writes for the message
	nagle  bool // whether TCP_NODELAY is off
	banner int  // the number of bytes that the server sends first
	leave  bool // whether one more byte follows the answer, after which the server closes
}

type echoClient struct {
	to      *address
	poller  *poller
	habits  habits
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
		c := &echoClient{to: to, payload: make([]byte, *size), habits: habits{writes: 1}}
		return c.run(*parallel, *seconds, *settle)
	}
}

func (c *echoClient) run(parallel int, seconds, settle float64) (any, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	c.poller, c.open, c.took = p, map[int]*exchange{}, make([]int64, 0, 1<<20)
	for range parallel {
		c.spare = append(c.spare, &exchange{})
	}
	start := now() + int64(settle*1e9)
	end := start + int64(seconds*1e9)
	settled := settle == 0
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

func (c *echoClient) begin() {
	fd, err := dial(c.to)
	if err != nil {
		c.failed++
		return
	}
	if c.habits.nagle {
		delaySmallWrites(fd)
	}
	e := c.spare[len(c.spare)-1]
	c.spare = c.spare[:len(c.spare)-1]
	*e = exchange{started: now(), missing: c.habits.banner}
	c.open[fd] = e
	c.poller.add(fd, in|out|edge)
}

func (c *echoClient) handle(fd int, events uint32) {
	e := c.open[fd]
	if e == nil {
		return
	}
	if !e.asked && e.missing == 0 && events&out != 0 && !c.ask(fd, e) {
		return
	}
	for events&in != 0 && e.missing > 0 {
		count, err := syscall.Read(fd, c.buffer[:])
		if err == syscall.EAGAIN {
			return
		}
		if e.left {
			c.finish(fd, e)
			return
		}
		if err != nil || count == 0 {
			c.fail(fd, e, "read", err)
			return
		}
		e.missing -= count
		if e.missing == 0 && !c.goOn(fd, e) {
			return
		}
	}
	if events&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		number, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		c.fail(fd, e, "connect", syscall.Errno(number))
	}
}

// ask sends the message; it returns false if the connection has ended.
func (c *echoClient) ask(fd int, e *exchange) bool {
	if err := writeInParts(fd, c.payload, c.habits.writes); err != nil {
		c.fail(fd, e, "write", err)
		return false
	}
	e.asked, e.missing = true, len(c.payload)
	return true
}

// goOn continues after the banner or the answer; it returns false if the connection has ended.
func (c *echoClient) goOn(fd int, e *exchange) bool {
	if !e.asked {
		return c.ask(fd, e)
	}
	c.took = append(c.took, now()-e.started)
	if !c.habits.leave {
		c.finish(fd, e)
		return false
	}
	_, _ = syscall.Write(fd, c.payload[:1])
	e.left, e.missing = true, 1
	return true
}

func (c *echoClient) finish(fd int, e *exchange) {
	syscall.Close(fd)
	delete(c.open, fd)
	c.spare = append(c.spare, e)
}

// fail counts a failure; the first one is printed to stderr.
func (c *echoClient) fail(fd int, e *exchange, where string, err error) {
	if c.failed == 0 {
		fmt.Fprintf(os.Stderr, "goload: %s after %.1f ms: %v\n", where, float64(now()-e.started)/1e6, err)
	}
	c.failed++
	c.finish(fd, e)
}
