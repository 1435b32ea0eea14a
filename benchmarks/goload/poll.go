package main

import (
	"syscall"
	"time"
	"unsafe"
)

const (
	in  = syscall.EPOLLIN
	out = syscall.EPOLLOUT
	// The package defines it as a negative number.
	edge = 1 << 31
)

// poller is one epoll of one thread.
type poller struct {
	fd     int
	events [256]syscall.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(0)
	return &poller{fd: fd}, err
}

func (p *poller) add(fd int, events uint32) {
	event := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	_ = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &event)
}

func (p *poller) modify(fd int, events uint32) {
	event := syscall.EpollEvent{Events: events, Fd: int32(fd)}
	_ = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_MOD, fd, &event)
}

func (p *poller) remove(fd int) { _ = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_DEL, fd, nil) }

// wait blocks the thread without informing Go's scheduler, which would otherwise wake another
// thread every 20 µs to check on it.
func (p *poller) wait(milliseconds int) []syscall.EpollEvent {
	count, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), uintptr(milliseconds), 0, 0)
	if errno != 0 {
		return nil
	}
	return p.events[:count]
}

// waitFor is wait with nanoseconds. Source: the number of epoll_pwait2 in asm-generic/unistd.h.
func (p *poller) waitFor(nanoseconds int64) []syscall.EpollEvent {
	const epollPwait2 = 441
	timeout := syscall.NsecToTimespec(nanoseconds)
	count, _, errno := syscall.RawSyscall6(epollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)),
		uintptr(len(p.events)), uintptr(unsafe.Pointer(&timeout)), 0, 0)
	if errno != 0 {
		return nil
	}
	return p.events[:count]
}

// wakePrecisely disables the thread's timer slack, by which the kernel may delay a wake-up by
// 50 µs.
func wakePrecisely() {
	const setTimerSlack = 29
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
}

// dial begins a connection; the socket becomes writable once it is established.
func dial(to *address) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	if err := syscall.Connect(fd, &to.SockaddrInet4); err != nil && err != syscall.EINPROGRESS {
		syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

var began = time.Now()

// now returns nanoseconds.
func now() int64 { return int64(time.Since(began)) }
