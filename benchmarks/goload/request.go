package main

import (
	"flag"
	"syscall"
)

// The number of bytes of requests, answers and banners.
const messageBytes = 64

// The bytes of a request that determine how the server answers.
const (
	answerWrites = iota // the number of writes
	answerNagle         // 1: TCP_NODELAY is off
)

// request sends requests to the server of request.go, each on a new connection.
func request(flags *flag.FlagSet) func() (any, error) {
	to := toFlag(flags)
	parallel := flags.Int("parallel", 4, "connections at a time")
	seconds := flags.Float64("seconds", 1, "how long")
	banner := flags.Bool("banner", false, "the server speaks first")
	writes := flags.Int("writes", 1, "of the request")
	nagle := flags.Bool("nagle", false, "the client's socket has no TCP_NODELAY")
	serverWrites := flags.Int("server-writes", 1, "of the answer")
	serverNagle := flags.Bool("server-nagle", false, "the server's socket has no TCP_NODELAY")
	return func() (any, error) {
		message := make([]byte, messageBytes)
		message[answerWrites] = byte(*serverWrites)
		if *serverNagle {
			message[answerNagle] = 1
		}
		c := &echoClient{to: to, payload: message, habits: habits{writes: *writes, nagle: *nagle, leave: true}}
		if *banner {
			c.habits.banner = messageBytes
		}
		return c.run(*parallel, *seconds, 0)
	}
}

// request answers once a request is complete, and closes at the first byte after it: if the client
// closed first, the node's source port would stay in TIME_WAIT.
func (s *server) request(fd int, _ uint32) {
	message := s.read(fd)
	if len(message) == 0 {
		return
	}
	before := s.requests[fd]
	if len(before)+len(message) > messageBytes {
		s.close(fd)
		return
	}
	request := append(before, message...)
	s.requests[fd] = request
	if len(request) == messageBytes {
		if request[answerNagle] == 1 {
			delaySmallWrites(fd)
		}
		_ = writeInParts(fd, make([]byte, messageBytes), max(1, int(request[answerWrites])))
	}
}

// delaySmallWrites has the kernel hold back a small segment until earlier ones are acknowledged,
// which is the default that dial and listen disable.
func delaySmallWrites(fd int) {
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 0)
}

// writeInParts writes a message in this many pieces of equal length.
func writeInParts(fd int, message []byte, parts int) error {
	size := len(message) / parts
	for part := range parts {
		if _, err := syscall.Write(fd, message[part*size:(part+1)*size]); err != nil {
			return err
		}
	}
	return nil
}
