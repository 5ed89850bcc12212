"""Plain data between a sandbox and the process that judges it: typed JSON, never pickle.

None, booleans, numbers, strings, bytes, and lists, tuples, sets, frozensets and dicts of these survive exactly; a
subclass is sent as its base class, by the base class's own methods, so that an object's own idea of itself does not
travel. An iterator is sent as what it yields. Anything else is sent as the name of its type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

MAX_ITEMS = 100_000
MAX_DEPTH = 100


class Opaque:
    """Stands for a value that is not plain data; equal to nothing but itself."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


def dumps(value: Any, handle: Callable[[Any], int] | None = None) -> bytes:
    """Encode a value. `handle`, if given, gives the number under which an object stays with the sender.

    Raises ValueError for one with more than MAX_ITEMS parts or nested deeper than MAX_DEPTH (so for a cyclic one).
    """
    return json.dumps(_Encoder(handle).encode(value, 0)).encode()


def loads(data: bytes, proxy: Callable[[int, str], Any] | None = None) -> Any:
    """Decode a value; `proxy` makes what stands for an object that stayed with the sender.

    Raises ValueError for anything that `dumps` cannot have written.
    """
    try:
        return _decode(json.loads(data), proxy)
    except (RecursionError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"not a value: {type(error).__name__}") from error


class _Encoder:
    def __init__(self, handle: Callable[[Any], int] | None) -> None:
        self.handle = handle
        self.items = 0

    def encode(self, value: Any, depth: int) -> Any:
        self.items += 1
        if self.items > MAX_ITEMS or depth > MAX_DEPTH:
            raise ValueError("the value is too large or cyclic")
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if issubclass(kind, int):
            number = int.__int__(value)
            return number if abs(number) < 1 << 53 else {"i": hex(number)}
        if issubclass(kind, float):
            return float.__float__(value)
        if issubclass(kind, complex):
            return {"c": [value.real, value.imag]}
        if issubclass(kind, str):
            return str.__str__(value)
        if issubclass(kind, (bytes, bytearray)):
            return {"b": bytes(value).hex()}
        return self._container(value, kind, depth + 1)

    def _container(self, value: Any, kind: type, depth: int) -> Any:
        if issubclass(kind, list):
            return [self.encode(item, depth) for item in list.__iter__(value)]
        if issubclass(kind, tuple):
            return {"t": [self.encode(item, depth) for item in tuple.__iter__(value)]}
        if issubclass(kind, dict):
            pairs = dict.items(value)
            return {"d": [[self.encode(key, depth), self.encode(item, depth)] for key, item in pairs]}
        if issubclass(kind, set):
            return {"s": [self.encode(item, depth) for item in set.__iter__(value)]}
        if issubclass(kind, frozenset):
            return {"f": [self.encode(item, depth) for item in frozenset.__iter__(value)]}
        if kind in (range, map, filter, zip, enumerate, reversed) or hasattr(kind, "__next__"):
            return {"n": [self.encode(item, depth) for item in islice(value, MAX_ITEMS)]}
        if self.handle is not None:
            return {"h": self.handle(value), "o": kind.__name__}
        return {"o": kind.__name__}


def _decode(data: Any, proxy: Callable[[int, str], Any] | None) -> Any:
    if isinstance(data, list):
        return [_decode(item, proxy) for item in data]
    if not isinstance(data, dict):
        return data
    if "o" in data:
        name = str(data["o"])[:80]
        return proxy(int(data["h"]), name) if proxy is not None and "h" in data else Opaque(name)
    ((tag, content),) = data.items()
    return _TAGS[tag](content, proxy)


def _items(content: Any, proxy: Callable[[int, str], Any] | None) -> Iterator[Any]:
    return (_decode(item, proxy) for item in content)


_TAGS: dict[str, Callable[[Any, Any], Any]] = {
    "i": lambda content, proxy: int(content, 16),
    "c": lambda content, proxy: complex(*content),
    "b": lambda content, proxy: bytes.fromhex(content),
    "t": lambda content, proxy: tuple(_items(content, proxy)),
    "s": lambda content, proxy: set(_items(content, proxy)),
    "f": lambda content, proxy: frozenset(_items(content, proxy)),
    "d": lambda content, proxy: {_decode(key, proxy): _decode(item, proxy) for key, item in content},
    "n": lambda content, proxy: iter(list(_items(content, proxy))),
}
