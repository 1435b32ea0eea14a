package main

import (
	"syscall"
	"unsafe"
)

const discardBytes = 4 << 20

// discard removes bytes from a TCP socket without copying them; see MSG_TRUNC in tcp(7).
func discard(fd int, scrap *[1]byte) (int, error) {
	count, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(scrap)), discardBytes, syscall.MSG_TRUNC|syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(count), nil
}
