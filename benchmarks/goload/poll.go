package main

import (
	"syscall"
	"time"
	"unsafe"
)

const (
	in  = syscall.EPOLLIN
	out = syscall.EPOLLOUT
	// The package has it as a negative number.
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

// wait blocks the thread behind the back of Go's scheduler, which would otherwise wake another
// one every 20 µs to see what became of it.
func (p *poller) wait(milliseconds int) []syscall.EpollEvent {
	count, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), uintptr(milliseconds), 0, 0)
	if errno != 0 {
		return nil
	}
	return p.events[:count]
}

// waitFor is wait with nanoseconds. Source of the number: epoll_pwait2 of asm-generic/unistd.h.
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

// wakePrecisely has this thread wake when its time has come, and not up to 50 µs later, which the
// kernel otherwise allows itself.
func wakePrecisely() {
	const setTimerSlack = 29
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
}

// dial begins a connection; the socket is writable when it is there.
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

// now is in nanoseconds.
func now() int64 { return int64(time.Since(began)) }
