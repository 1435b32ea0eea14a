"""Jenkins' hash of bytes, as the kernel's jhash() computes it.

Source: include/linux/jhash.h.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_INITIAL = 0xDEADBEEF


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _MASK


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = (a - c) & _MASK ^ _rotated(c, 4)
    c = (c + b) & _MASK
    b = (b - a) & _MASK ^ _rotated(a, 6)
    a = (a + c) & _MASK
    c = (c - b) & _MASK ^ _rotated(b, 8)
    b = (b + a) & _MASK
    a = (a - c) & _MASK ^ _rotated(c, 16)
    c = (c + b) & _MASK
    b = (b - a) & _MASK ^ _rotated(a, 19)
    a = (a + c) & _MASK
    c = (c - b) & _MASK ^ _rotated(b, 4)
    b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotated(b, 14) & _MASK
    a = (a ^ c) - _rotated(c, 11) & _MASK
    b = (b ^ a) - _rotated(a, 25) & _MASK
    c = (c ^ b) - _rotated(b, 16) & _MASK
    a = (a ^ c) - _rotated(c, 4) & _MASK
    b = (b ^ a) - _rotated(a, 14) & _MASK
    return (c ^ b) - _rotated(b, 24) & _MASK


def jhash(data: bytes, seed: int) -> int:
    """Return the 32-bit hash."""
    a = b = c = (_INITIAL + len(data) + seed) & _MASK
    while len(data) > 12:
        words = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8))
        a, b, c = ((one + word) & _MASK for one, word in zip((a, b, c), words, strict=True))
        a, b, c = _mixed(a, b, c)
        data = data[12:]
    if not data:
        return c
    padded = data.ljust(12, b"\0")
    words = (int.from_bytes(padded[at : at + 4], "little") for at in (0, 4, 8))
    a, b, c = ((one + word) & _MASK for one, word in zip((a, b, c), words, strict=True))
    return _final(a, b, c)
