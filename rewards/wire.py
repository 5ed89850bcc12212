"""Length-prefixed frames over a stream socket."""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("!Q")
HEADER_SIZE = _HEADER.size


def send_frame(sock: socket.SocketType, payload: bytes) -> None:
    """Send one frame; blocks until the kernel has taken all of it."""
    sock.sendall(_HEADER.pack(len(payload)) + payload)


def recv_frame(sock: socket.SocketType, limit: int | None = None) -> bytes:
    """Receive one frame. Raises EOFError when the peer is gone, ValueError for a frame of more than `limit` bytes."""
    (size,) = _HEADER.unpack(_recv_exactly(sock, _HEADER.size))
    if limit is not None and size > limit:
        raise ValueError(f"frame of {size} bytes, limit {limit}")
    return _recv_exactly(sock, size)


def _recv_exactly(sock: socket.SocketType, size: int) -> bytes:
    chunks = []
    while size:
        chunk = sock.recv(min(size, 1 << 20))
        if not chunk:
            raise EOFError("peer closed the socket")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
