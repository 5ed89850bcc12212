"""Values between two sandboxes: typed JSON, never pickle.

Plain values survive exactly: None, booleans, numbers, text, bytes, containers and what the standard library makes of
these (fractions, decimals, dates, deques, views, arrays). So do built-in exceptions, and the classes of all of them.
Of an instance of a subclass, and of any other object, the sender keeps the object and sends what `refer` makes of it.
"""

from __future__ import annotations

import array
import builtins
import collections
import datetime
import decimal
import fractions
import json
from collections.abc import Callable, Iterable
from typing import Any

MAX_ITEMS = 1 << 20
MAX_DEPTH = 100
MAX_LENGTH = 4 << 20  # of one string; nor may the whole have more bytes than this
IMMUTABLE = (int, float, complex, str, bytes, tuple, frozenset, fractions.Fraction, decimal.Decimal, datetime.datetime,
             datetime.date, datetime.time, datetime.timedelta)  # fmt: skip
MUTABLE = (list, dict, set, bytearray, collections.deque, array.array)
_EXCEPTIONS = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
_NAMED = {
    **{kind.__name__: kind for kind in (*IMMUTABLE, *MUTABLE, *_EXCEPTIONS, object, bool, type, range, slice)},
    **{kind.__name__: kind for kind in (collections.Counter, collections.OrderedDict, collections.defaultdict)},
    **{repr(single): single for single in (NotImplemented, Ellipsis)},
    **{kind.__name__: kind for kind in map(type, (None, NotImplemented, Ellipsis))},
}
_NAMES = {id(named): name for name, named in _NAMED.items()}
_MADE: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    range: lambda value: (value.start, value.stop, value.step),
    slice: lambda value: (value.start, value.stop, value.step),
    fractions.Fraction: lambda value: (value.numerator, value.denominator),
    decimal.Decimal: lambda value: (str(value),),
    datetime.date: lambda value: (value.year, value.month, value.day),
    datetime.time: lambda value: (value.hour, value.minute, value.second, value.microsecond, value.tzinfo),
    datetime.datetime: lambda value: (*value.timetuple()[:6], value.microsecond, value.tzinfo),
    datetime.timedelta: lambda value: (value.days, value.seconds, value.microseconds),
    datetime.timezone: lambda value: (value.utcoffset(None),),
    collections.deque: lambda value: (list(value), value.maxlen),
    collections.Counter: lambda value: (dict(value),),
    collections.OrderedDict: lambda value: (list(value.items()),),
    collections.defaultdict: lambda value: (dict(value),),
    memoryview: lambda value: (value.tobytes(),),
    array.array: lambda value: (value.typecode, value.tolist()),
    type({}.keys()): lambda value: (list(value),),
    type({}.values()): lambda value: (list(value),),
    type({}.items()): lambda value: (list(value),),
    **{kind: lambda value: value.args for kind in _EXCEPTIONS},
}
_MAKERS: dict[str, Callable[..., Any]] = {
    **{kind.__name__: kind for kind in _MADE},
    "defaultdict": lambda items: collections.defaultdict(None, items),
    "dict_keys": lambda keys: dict.fromkeys(keys).keys(),
    "dict_values": lambda values: dict(enumerate(values)).values(),
    "dict_items": lambda items: dict(items).items(),
}
_write = json.JSONEncoder(check_circular=False).encode
_OWN = {type(None), bool, float}
_TEXTS: dict[type, str] = {str: "", bytes: "b", bytearray: "B"}
_LISTED: dict[type, str] = {tuple: "t", set: "s", frozenset: "f"}
Refer = Callable[[Any], list[Any]]
Resolve = Callable[[list[Any]], Any]


def learn(kind: type, parts: Callable[[Any], tuple[Any, ...]], make: Callable[..., Any]) -> None:
    """Have values of exactly this type travel as their parts, to be made of them again; so does the type itself."""
    name = f"{kind.__module__}.{kind.__name__}"
    _MADE[kind], _MAKERS[name], _NAMED[name], _NAMES[id(kind)] = parts, make, kind, name


def dumps(value: Any, refer: Refer | None = None) -> bytes:
    """Encode a value; `refer` makes plain data of an object that stays with the sender.

    Raises ValueError for one with more than MAX_ITEMS parts or a string longer than MAX_LENGTH, or nested deeper than
    MAX_DEPTH (so for a cyclic one), or with an object where there is no `refer`.
    """
    return _write(_Encoder(refer).encode(value)).encode()


def decoder(resolve: Resolve | None = None) -> Callable[[bytes], Any]:
    """A function that decodes values and raises ValueError for what is none.

    `resolve` makes an object of what `refer` made.
    """

    def untagged(tagged: dict[str, Any]) -> Any:
        ((tag, content),) = tagged.items()
        if type(content) not in (list, str):  # an object would be asked what it contains
            raise ValueError("not a value")
        if tag == "o" and resolve is not None:
            return resolve(content)
        return _TAGS[tag](content)

    read = json.JSONDecoder(object_hook=untagged).raw_decode

    def decode(data: bytes) -> Any:
        try:
            value, end = read(data.decode())
        except (RecursionError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"not a value: {type(error).__name__}") from error
        if end != len(data):
            raise ValueError("more than a value")
        return value

    return decode


def base_of(value: Any) -> Any:
    """The plain value that an instance of a subclass of a plain type is, by that type's own methods; else None."""
    kind = type(value)
    for base in (*IMMUTABLE, *MUTABLE):
        if issubclass(kind, base):
            break
    else:
        return None
    if base in (list, tuple, set, frozenset, collections.deque):
        return base(base.__iter__(value))
    if base is dict:
        return dict(dict.items(value))
    if base is str:
        return str.__str__(value)
    if base in (bytes, bytearray):
        return base(memoryview(value))
    if base in (int, float):
        return base.__pos__(value)  # type: ignore[attr-defined]
    return base(*_MADE[base](value)) if base in _MADE else complex.__pos__(value)


class _Encoder:
    """Makes of a value what JSON can say: lists are lists, and all else that is not JSON's own has a tag."""

    def __init__(self, refer: Refer | None) -> None:
        self.refer = refer
        self.items = 0

    def encode(self, value: Any, depth: int = 0) -> Any:
        self.items += 1
        if self.items > MAX_ITEMS or depth > MAX_DEPTH:
            raise ValueError("the value is too large or cyclic")
        kind = type(value)
        if kind in _OWN or (kind is int and -(1 << 53) < value < 1 << 53):
            return value
        if kind in _TEXTS:
            if len(value) > MAX_LENGTH:
                raise ValueError("the value is too large")
            return value if kind is str else {_TEXTS[kind]: value.hex()}
        return self._parts(value, depth) if kind is list else self._tagged(value, kind, depth)

    def _tagged(self, value: Any, kind: type, depth: int) -> dict[str, Any]:
        if kind in _LISTED:
            return {_LISTED[kind]: self._parts(value, depth)}
        if kind is dict:
            return {"d": [self._parts(pair, depth) for pair in value.items()]}
        if kind is int:
            return {"i": hex(value)}
        if kind is complex:
            return {"c": [value.real, value.imag]}
        if kind in _MADE:
            return {"m": self._parts((_NAMES.get(id(kind), kind.__name__), *_MADE[kind](value)), depth)}
        if id(value) in _NAMES:
            return {"g": _NAMES[id(value)]}
        if self.refer is None:
            raise ValueError(f"a {kind.__name__} is no plain value")
        return {"o": self._parts(self.refer(value), depth)}

    def _parts(self, items: Iterable[Any], depth: int) -> list[Any]:
        return [self.encode(item, depth + 1) for item in items]


_TAGS: dict[str, Callable[[Any], Any]] = {
    "i": lambda digits: int(digits, 16),
    "c": lambda parts: complex(*parts),
    "b": bytes.fromhex,
    "B": bytearray.fromhex,
    "t": tuple,
    "s": set,
    "f": frozenset,
    "d": dict,
    "m": lambda name_and_parts: _MAKERS[name_and_parts[0]](*name_and_parts[1:]),
    "g": _NAMED.__getitem__,
}
