"""Length-prefixed frames over the descriptor of a blocking stream socket."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

_HEADER = struct.Struct("!Q")
_AT_ONCE, _PIECE = 1 << 12, 1 << 20  # bytes that are read at least, and at most
HEADER_SIZE = _HEADER.size


def framed(payload: bytes) -> bytes:
    """A frame, to be sent alone or together with others."""
    return _HEADER.pack(len(payload)) + payload


def send_frame(descriptor: int, payload: bytes) -> None:
    """Send one frame; blocks until the kernel has taken all of it."""
    write_all(descriptor, framed(payload))


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes; blocks until the kernel has taken all of them."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def send_file(descriptor: int, head: bytes, file: int) -> None:
    """Send `head` and the whole of a file as one frame, without reading the file into memory."""
    size, sent = os.fstat(file).st_size, 0
    write_all(descriptor, _HEADER.pack(len(head) + size) + head)
    while sent < size:
        sent += os.sendfile(descriptor, file, sent, size - sent)


class Frames:
    """The frames that arrive where `read` reads, which takes a number of bytes and returns that many or fewer.

    What arrives together, such as several short frames, is read together.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._received = read, bytearray()

    def receive(self, limit: int | None = None) -> bytes:
        """Receive one frame. Raises EOFError when the peer is gone, ValueError for one of more than `limit` bytes."""
        size = self._size()
        if limit is not None and size > limit:
            raise ValueError(f"frame of {size} bytes, limit {limit}")
        return self._take(size)

    def receive_file(self, make: Callable[[], int]) -> int:
        """Receive one frame, piece by piece, into the file that `make` opens when it begins; returns that file."""
        size = self._size()
        file = make()
        while size:
            piece = self._take(min(size, _PIECE))
            write_all(file, piece)
            size -= len(piece)
        return file

    def _size(self) -> int:
        return int.from_bytes(self._take(HEADER_SIZE), "big")

    def _take(self, size: int) -> bytes:
        received = self._received
        while (lacking := size - len(received)) > 0:
            piece = self._read(min(max(lacking, _AT_ONCE), _PIECE))
            if not piece:
                raise EOFError("peer closed the socket")
            received += piece
        taken = bytes(received[:size])
        del received[:size]
        return taken
