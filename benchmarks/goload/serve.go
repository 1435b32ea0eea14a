package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	backlog     = 4096
	acceptAtOne = 64
)

// handler handles the events of one descriptor.
type handler func(fd int, events uint32)

// server is one thread that serves all ports.
type server struct {
	poller   *poller
	handlers map[int]handler
	buffer   [64 << 10]byte
	client   [syscall.SizeofSockaddrInet4]byte
	piece    [1 << 20]byte // for bulk; sendfile was slower, because its pages are small
	answer   []byte
	farewell []byte
	requests map[int][]byte // the incomplete request of each connection
}

func serve(flags *flag.FlagSet) func() (any, error) {
	httpPort := flags.Int("http", 0, "port that answers any request of one segment; 0: none")
	echoPort := flags.Int("echo", 0, "port that sends back what it gets; 0: none")
	sourcePort := flags.Int("source", 0, "port that sends without end after the first byte; 0: none")
	udpPort := flags.Int("udp", 0, "port that sends datagrams back; 0: none")
	requestPort := flags.Int("request", 0, "port that answers a request once it is whole; 0: none")
	bannerPort := flags.Int("banner", 0, "port that does the same, but speaks first; 0: none")
	return func() (any, error) {
		p, err := newPoller()
		if err != nil {
			return nil, err
		}
		body := bytes.Repeat([]byte("."), 128)
		s := &server{
			poller: p, handlers: map[int]handler{}, requests: map[int][]byte{},
			answer:   fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body),
			farewell: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body),
		}
		for port, handle := range map[int]handler{
			*httpPort: s.http, *echoPort: s.echo, *sourcePort: s.source,
			*requestPort: s.request, *bannerPort: s.request,
		} {
			if port != 0 {
				var first []byte
				if port == *bannerPort {
					first = make([]byte, messageBytes)
				}
				if err := s.listen(port, first, handle); err != nil {
					return nil, err
				}
			}
		}
		if *udpPort != 0 {
			if err := s.listenUDP(*udpPort); err != nil {
				return nil, err
			}
		}
		fmt.Println("ready")
		os.Stdout.Close()
		for {
			for _, event := range p.wait(-1) {
				if handle := s.handlers[int(event.Fd)]; handle != nil {
					handle(int(event.Fd), event.Events)
				}
			}
		}
	}
}

// listen sends first to each client that connects, unless it is empty.
func (s *server) listen(port int, first []byte, handle handler) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	// Accepted sockets inherit this option.
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	if err := syscall.Listen(fd, backlog); err != nil {
		return err
	}
	s.handlers[fd] = func(fd int, _ uint32) { s.accept(fd, first, handle) }
	s.poller.add(fd, in)
	return nil
}

func (s *server) accept(listener int, first []byte, handle handler) {
	for range acceptAtOne {
		fd, _, errno := syscall.Syscall6(syscall.SYS_ACCEPT4, uintptr(listener), 0, 0, syscall.SOCK_NONBLOCK, 0, 0)
		if errno != 0 {
			return
		}
		s.handlers[int(fd)] = handle
		s.poller.add(int(fd), in)
		if len(first) > 0 {
			_, _ = syscall.Write(int(fd), first)
		}
	}
}

func (s *server) close(fd int) {
	delete(s.handlers, fd)
	delete(s.requests, fd)
	syscall.Close(fd)
}

// read returns the available bytes; empty if there are none yet, or the connection was closed.
func (s *server) read(fd int) []byte {
	count, err := syscall.Read(fd, s.buffer[:])
	if err == syscall.EAGAIN {
		return nil
	}
	if err != nil || count == 0 {
		s.close(fd)
		return nil
	}
	return s.buffer[:count]
}

func (s *server) http(fd int, _ uint32) {
	request := s.read(fd)
	if len(request) == 0 {
		return
	}
	if !bytes.HasSuffix(request, []byte("\r\n\r\n")) {
		s.close(fd)
		return
	}
	if bytes.Contains(request, []byte("onnection: close")) {
		_, _ = syscall.Write(fd, s.farewell)
		s.close(fd)
		return
	}
	_, _ = syscall.Write(fd, s.answer)
}

func (s *server) echo(fd int, _ uint32) {
	if message := s.read(fd); len(message) > 0 {
		_, _ = syscall.Write(fd, message)
	}
}

func (s *server) source(fd int, events uint32) {
	if events&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		s.close(fd)
		return
	}
	if events&in != 0 {
		if len(s.read(fd)) > 0 {
			s.poller.modify(fd, out)
		}
		return
	}
	if _, err := syscall.Write(fd, s.piece[:]); err != nil && err != syscall.EAGAIN {
		s.close(fd)
	}
}

func (s *server) listenUDP(port int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<20)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	s.handlers[fd] = s.datagrams
	s.poller.add(fd, in)
	return nil
}

// datagrams echoes datagrams to their senders.
func (s *server) datagrams(fd int, _ uint32) {
	for range acceptAtOne {
		size := uint32(len(s.client))
		count, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(&s.buffer)), uintptr(len(s.buffer)), 0,
			uintptr(unsafe.Pointer(&s.client)), uintptr(unsafe.Pointer(&size)))
		if errno != 0 {
			return
		}
		_, _, _ = syscall.Syscall6(syscall.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(&s.buffer)), count, 0,
			uintptr(unsafe.Pointer(&s.client)), uintptr(size))
	}
}
