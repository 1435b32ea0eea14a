/* Lets old kernels of User Mode Linux run on processors whose registers have more state (AMX).
 *
 * Up to Linux 6.12 their buffer for a process's registers has a fixed size. The kernel of the
 * machine cuts what it reads into such a buffer, and accepts only the whole state when written. So
 * the rest is appended here, as never used. One thread traces all processes.
 *
 * Source: arch/x86/kernel/fpu/regset.c, xstateregs_set(); Documentation/arch/x86/xstate.rst.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202
/* XSTATE_BV: which parts are used. Those up to 9 (PKRU) are in the buffer. */
#define USED 512
#define IN_BUFFER 0x2ffUL

static char whole[1 << 16] __attribute__((aligned(64)));
static size_t size;

static long trace(long request, long pid, void *addr, void *data)
{
	return syscall(SYS_ptrace, request, pid, addr, data);
}

static int restore(long pid, const struct iovec *part)
{
	struct iovec all = {whole, sizeof(whole)};

	if (!size) {
		if (trace(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all))
			return -1;
		size = all.iov_len;
		memset(whole, 0, size);
	}
	if (part->iov_len >= size)
		return trace(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, (void *)part);
	memcpy(whole, part->iov_base, part->iov_len);
	*(unsigned long *)(whole + USED) &= IN_BUFFER;
	all.iov_len = size;
	return trace(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list list;
	long pid, value;
	void *addr, *data;

	va_start(list, request);
	pid = va_arg(list, int);
	addr = va_arg(list, void *);
	data = va_arg(list, void *);
	va_end(list);
	if (request == PTRACE_SETREGSET && addr == (void *)NT_X86_XSTATE)
		return restore(pid, data);
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
		/* The library's own function returns the value, too. */
		if (trace(request, pid, addr, &value))
			return -1;
		errno = 0;
		return value;
	}
	return trace(request, pid, addr, data);
}
