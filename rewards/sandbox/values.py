"""Plain data between a sandbox and the process that judges it: typed JSON, never pickle.

None, booleans, numbers, strings, bytes, and lists, tuples, sets, frozensets and dicts of these survive exactly; a
subclass is sent as its base class, by the base class's own methods, so that an object's own idea of itself does not
travel. An iterator is sent as what it yields. Anything else is sent as the name of its type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import Any

MAX_ITEMS = 100_000
MAX_DEPTH = 100
MAX_COLLISIONS = 1000
MAX_LENGTH = 4 << 20  # of one string; nor may the whole have more bytes than this


class Opaque:
    """Stands for a value that is not plain data; equal to nothing but itself."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


def dumps(value: Any, handle: Callable[[Any], int] | None = None) -> bytes:
    """Encode a value. `handle`, if given, gives the number under which an object stays with the sender.

    Raises ValueError for one with more than MAX_ITEMS parts or a string longer than MAX_LENGTH, or nested deeper than
    MAX_DEPTH (so for a cyclic one).
    """
    text = _scalar(value, type(value))
    return (_Encoder(handle).encode(value, 0) if text is None else text).encode()


def loads(data: bytes, proxy: Callable[[int, str], Any] | None = None) -> Any:
    """Decode a value; `proxy` makes what stands for an object that stayed with the sender.

    Raises ValueError for anything that `dumps` cannot have written.
    """
    try:
        return _decode(json.loads(data), proxy)
    except (RecursionError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"not a value: {type(error).__name__}") from error


def _scalar(value: Any, kind: type) -> str | None:
    """JSON of a value that has no parts; None for any other."""
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if issubclass(kind, int):
        number = int.__int__(value)
        return str(number) if abs(number) < 1 << 53 else f'{{"i": "{hex(number)}"}}'
    if issubclass(kind, str):
        _check_length(str.__len__(value))
        return encode_basestring_ascii(str.__str__(value))
    if issubclass(kind, float):
        return _json_of_float(float.__float__(value))
    if issubclass(kind, complex):
        exact = complex.__pos__(value)
        return f'{{"c": [{_json_of_float(exact.real)}, {_json_of_float(exact.imag)}]}}'
    if issubclass(kind, (bytes, bytearray)):
        base = bytes if issubclass(kind, bytes) else bytearray
        _check_length(base.__len__(value))
        return f'{{"b": "{base.hex(value)}"}}'
    return None


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise ValueError("the value is too large")


def _json_of_float(number: float) -> str:
    if number - number == 0.0:
        return repr(number)
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


class _Encoder:
    """Writes JSON itself: the standard encoder would first need a second structure, of plain lists and dicts."""

    def __init__(self, handle: Callable[[Any], int] | None) -> None:
        self.handle = handle
        self.items = 0

    def encode(self, value: Any, depth: int) -> str:
        self.items += 1
        if self.items > MAX_ITEMS or depth > MAX_DEPTH:
            raise ValueError("the value is too large or cyclic")
        kind = type(value)
        text = _scalar(value, kind)
        return self._container(value, kind, depth + 1) if text is None else text

    def _container(self, value: Any, kind: type, depth: int) -> str:
        if issubclass(kind, list):
            return self._parts(list.__iter__(value), depth)
        if issubclass(kind, tuple):
            return f'{{"t": {self._parts(tuple.__iter__(value), depth)}}}'
        if issubclass(kind, dict):
            pairs = [f"[{self.encode(key, depth)},{self.encode(item, depth)}]" for key, item in dict.items(value)]
            return f'{{"d": [{",".join(pairs)}]}}'
        if issubclass(kind, set):
            return f'{{"s": {self._parts(set.__iter__(value), depth)}}}'
        if issubclass(kind, frozenset):
            return f'{{"f": {self._parts(frozenset.__iter__(value), depth)}}}'
        if kind in (range, map, filter, zip, enumerate, reversed) or hasattr(kind, "__next__"):
            return f'{{"n": {self._parts(islice(value, MAX_ITEMS), depth)}}}'
        name = encode_basestring_ascii(kind.__name__)
        if self.handle is not None:
            return f'{{"h": {self.handle(value)}, "o": {name}}}'
        return f'{{"o": {name}}}'

    def _parts(self, items: Iterable[Any], depth: int) -> str:
        return "[" + ",".join([self.encode(item, depth) for item in items]) + "]"


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


def _distinct(content: Any, proxy: Callable[[int, str], Any] | None) -> list[Any]:
    """Members of a set. Numbers can be chosen to share a hash; a set of many such takes the square of their count."""
    members = list(_items(content, proxy))
    if len(members) - len(set(map(hash, members))) > MAX_COLLISIONS:
        raise ValueError("members that share their hash")
    return members


def _dict(content: Any, proxy: Callable[[int, str], Any] | None) -> dict[Any, Any]:
    keys = _distinct([key for key, _ in content], proxy)
    return dict(zip(keys, _items([item for _, item in content], proxy), strict=True))


def _items(content: Any, proxy: Callable[[int, str], Any] | None) -> Iterator[Any]:
    return (_decode(item, proxy) for item in content)


_TAGS: dict[str, Callable[[Any, Any], Any]] = {
    "i": lambda content, proxy: int(content, 16),
    "c": lambda content, proxy: complex(*content),
    "b": lambda content, proxy: bytes.fromhex(content),
    "t": lambda content, proxy: tuple(_items(content, proxy)),
    "s": lambda content, proxy: set(_distinct(content, proxy)),
    "f": lambda content, proxy: frozenset(_distinct(content, proxy)),
    "d": _dict,
    "n": lambda content, proxy: iter(list(_items(content, proxy))),
}
