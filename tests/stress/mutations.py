"""Damage to a file's bytes, by chance."""

from collections.abc import Callable

import numpy as np

Random = np.random.Generator

# Of the fields of headers: none, one, signs, and the largest of 8, 16 and 32 bits.
_EDGES = (b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\1", b"\1\0")
HEADER = 64  # bytes, in which most formats keep sizes


def _position(content: bytes, random: Random) -> int:
    """Anywhere, half of the time in the header."""
    end = HEADER if random.random() < 0.5 else len(content)
    return int(random.integers(0, min(end, len(content)) or 1))


def flip_bits(content: bytes, random: Random) -> bytes:
    """One to eight bits the other way."""
    damaged = bytearray(content)
    for _ in range(int(random.integers(1, 9))):
        damaged[_position(content, random)] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def flip_a_bit(content: bytes, random: Random) -> bytes:
    """One bit the other way."""
    damaged = bytearray(content)
    damaged[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def write_edges(content: bytes, random: Random) -> bytes:
    """Zeros, ones or the largest number over one to three places."""
    damaged = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        new = _EDGES[int(random.integers(len(_EDGES)))]
        start = _position(content, random)
        damaged[start : start + len(new)] = new
    return bytes(damaged)


def write_noise(content: bytes, random: Random) -> bytes:
    """Up to 64 bytes of noise in one place."""
    start = _position(content, random)
    noise = random.bytes(int(random.integers(1, 65)))
    return content[:start] + noise + content[start + len(noise) :]


def cut(content: bytes, random: Random) -> bytes:
    """The end missing, perhaps all of it."""
    return content[: int(random.integers(0, len(content)))]


def remove(content: bytes, random: Random) -> bytes:
    """Up to 256 bytes missing in the middle."""
    start = _position(content, random)
    return content[:start] + content[start + int(random.integers(1, 257)) :]


def repeat(content: bytes, random: Random) -> bytes:
    """Up to 4,096 bytes twice, or many times."""
    start = _position(content, random)
    part = content[start : start + int(random.integers(1, 4097))]
    times = 100 if random.random() < 0.1 else 1
    return content[:start] + part * times + content[start:]


MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    flip_bits, flip_a_bit, write_edges, write_noise, cut, remove, repeat,
)  # fmt: skip


def mutate(content: bytes, random: Random) -> bytes:
    """The content with one or two damages, never as it was."""
    damaged = content
    while damaged == content:
        for _ in range(int(random.integers(1, 3))):
            damaged = MUTATIONS[int(random.integers(len(MUTATIONS)))](damaged or b"\0", random)
    return damaged
