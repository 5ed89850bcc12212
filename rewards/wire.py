"""Length-prefixed frames over the descriptor of a blocking stream socket."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

_HEADER = struct.Struct("!Q")
_AT_ONCE = 1 << 12
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


def recv_size(descriptor: int) -> int:
    """Receive the head of a frame: how many bytes follow. Raises EOFError when the peer is gone."""
    return int.from_bytes(_recv_exactly(descriptor, HEADER_SIZE), "big")


def copy_bytes(descriptor: int, file: int, size: int) -> None:
    """Receive `size` bytes into a file, piece by piece. Raises EOFError when the peer is gone."""
    while size:
        piece = _recv_exactly(descriptor, min(size, 1 << 20))
        write_all(file, piece)
        size -= len(piece)


def recv_frame(descriptor: int, limit: int | None = None) -> bytes:
    """Receive one frame. Raises EOFError when the peer is gone, ValueError for a frame of more than `limit` bytes."""
    size = recv_size(descriptor)
    if limit is not None and size > limit:
        raise ValueError(f"frame of {size} bytes, limit {limit}")
    return _recv_exactly(descriptor, size)


class Frames:
    """The frames that arrive where `read` reads, which takes a number of bytes and returns that many or fewer.

    What arrives together, such as several short frames, is read together.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._received = read, bytearray()

    def receive(self, limit: int | None = None) -> bytes:
        """Receive one frame. Raises EOFError when the peer is gone, ValueError for one of more than `limit` bytes."""
        size = int.from_bytes(self._take(HEADER_SIZE), "big")
        if limit is not None and size > limit:
            raise ValueError(f"frame of {size} bytes, limit {limit}")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        received = self._received
        while (lacking := size - len(received)) > 0:
            piece = self._read(min(max(lacking, _AT_ONCE), 1 << 20))
            if not piece:
                raise EOFError("peer closed the socket")
            received += piece
        taken = bytes(received[:size])
        del received[:size]
        return taken


def _recv_exactly(descriptor: int, size: int) -> bytes:
    chunks = []
    while size:
        chunk = os.read(descriptor, min(size, 1 << 20))
        if not chunk:
            raise EOFError("peer closed the socket")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
