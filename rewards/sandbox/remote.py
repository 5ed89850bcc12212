"""What stands here for an object or a class of the other peer's: an operation on it is a question to the other.

The expected values of the tests are not the program's to see or to judge. A comparison with plain data never asks the
program: it compares the plain value that an instance of a subclass of a plain type is, and anything else is different.
`in`, arithmetic with plain data and methods such as `startswith` ask only an object that a file of tests has made
itself, by calling what it calls by a capitalized name; an object that a function returned is not taken at its word.
"""

from __future__ import annotations

import datetime
import math
import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from rewards.sandbox.values import IMMUTABLE

_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift")
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "__divmod__": divmod,
    "__rdivmod__": lambda value, other: divmod(other, value),
}
for _name in _BINARY:
    _function, _bare = getattr(operator, _name), _name.strip("_")
    _ARITHMETIC[f"__{_bare}__"] = _function
    _ARITHMETIC[f"__i{_bare}__"] = getattr(operator, f"i{_bare}")
    _ARITHMETIC[f"__r{_bare}__"] = lambda value, other, function=_function: function(other, value)
OPERATORS: dict[str, Callable[..., Any]] = {
    **_ARITHMETIC,
    **{name: getattr(operator, name) for name in _COMPARISONS},
    **{name: getattr(operator, name) for name in ("__getitem__", "__setitem__", "__delitem__", "__contains__")},
    **{name: getattr(operator, name) for name in ("__neg__", "__pos__", "__abs__", "__invert__", "__index__")},
    "__len__": len, "__iter__": iter, "__next__": next, "__reversed__": reversed, "__bool__": bool, "__hash__": hash,
    "__str__": str, "__repr__": repr, "__format__": format, "__int__": int, "__float__": float, "__complex__": complex,
    "__round__": round, "__trunc__": math.trunc, "__floor__": math.floor, "__ceil__": math.ceil,
    "__enter__": lambda value: type(value).__enter__(value),
    "__exit__": lambda value, *raised: type(value).__exit__(value, *raised),
    "__call__": operator.call, "__await__": lambda value: value.__await__(),
}  # fmt: skip
_TEXTS = ("__str__", "__repr__", "__format__")  # which an instance of an immutable plain type may still have of its own
_PREDICATES = {
    name
    for kind in IMMUTABLE[:7]
    for name in [*dir(kind), "issubset", "issuperset"]
    if name.startswith("is") or name.endswith("swith")
}
# Whose exceptions would do more to tests than fail them, or are no library's.
_NO_LIBRARIES = {"unittest", "bdb", "pytest", "_pytest", "pluggy", "tests", "rewards", "solution"}
_PATIENT, _AT_ONCE = 16, 1024  # items of an iterator that are asked for one by one, and then together


class Peer(Protocol):
    """The end of the channel behind which an object is kept, see `rewards.sandbox.peer`."""

    wary: bool
    makes: bool

    def ask(self, question: str, *operands: Any) -> Any: ...

    def call(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any: ...

    def raisable(self, error: Any) -> BaseException: ...


class CannotTest(BaseException):
    """What the tests do is beyond what stands for the program's objects."""


class _State:
    """Which object a stand-in stands for, and what is known of it here."""

    def __init__(self, peer: Peer, number: int, made: bool = False) -> None:
        self.peer, self.number = peer, number
        self.made = made  # an object by the tests; a class, if they may make objects of it
        self.label = ""  # the name that it was asked for by
        self.taken = 0
        self.ahead: list[Any] = []
        self.error: BaseException | None = None


def _known(value: Any) -> _State | None:
    if isinstance(value, RemoteType):
        return type.__getattribute__(value, "__dict__").get("_class_state_")
    return object.__getattribute__(value, "_state_") if isinstance(value, Remote) else None


def _state(value: Any) -> _State:
    state = _known(value)
    if state is None:
        raise CannotTest(f"{value.__name__} would inherit from a class of the program's")
    return state


def reference(value: Any) -> tuple[Peer | None, int]:
    """The peer that a value stands for an object of, and that object's number; (None, 0) for any other value."""
    state = _known(value)
    return (state.peer, state.number) if state else (None, 0)


def same(left: Any, right: Any) -> bool:
    """Whether two are one object, here or at the other peer."""
    return left is right or (reference(left) == reference(right) != (None, 0))


def label(value: Any) -> str:
    """The name that a function or class was asked for by."""
    state = _known(value)
    return (state.label if state else "") or "a function"


def set_label(value: Any, name: str) -> None:
    """Remember the name that a function or class was asked for by: a class by none but capitalized names is one."""
    if (state := _known(value)) is None:
        return
    if isinstance(value, RemoteType):
        state.made = name[:1].isupper() and (state.made or not state.label)
    state.label = name


def _asks(name: str) -> Callable[..., Any]:
    """An operator that the other peer applies."""

    def operate(self: Any, *operands: Any) -> Any:
        state = _state(self)
        result = state.peer.ask("operate", name, self, *operands)
        return _made_by_tests(result) if state.made and type(result) is type(self) else result

    return operate


def _contains(self: Any, item: Any) -> bool:
    state = _state(self)
    trusted = state.made and isinstance(self, Remote)
    if not state.peer.wary or trusted or isinstance(item, (Remote, RemoteType)):
        return state.peer.ask("operate", "__contains__", self, item)
    plain = state.peer.ask("plain", self)
    return any(item is found or item == found for found in (self if plain is None else plain))


class _Asking:
    """What both classes and objects leave to the other peer."""

    def __getattr__(self, name: str) -> Any:
        state = _state(self)
        if state.peer.wary and name in _PREDICATES and not (state.made and isinstance(self, Remote)):
            raise AttributeError(f"what {name} says of an object that the program returned counts for nothing")
        value = state.peer.ask("get", self, name)
        set_label(value, name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        _state(self).peer.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        _state(self).peer.ask("delete", self, name)

    def __dir__(self) -> list[str]:
        return _state(self).peer.ask("dir", self)


class RemoteType(_Asking, type):
    """The class of what stands for classes: these are real classes, related to each other as those are."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        state = _state(cls)
        value = state.peer.call(cls, arguments, named)
        return _made_by_tests(value) if state.made and state.peer.makes else value

    def __bool__(cls) -> bool:
        return True

    __iter__, __len__, __getitem__ = map(_asks, ("__iter__", "__len__", "__getitem__"))
    __contains__ = _contains


class Remote(_Asking, metaclass=RemoteType):
    """Base of all classes whose instances stand for objects. Operators are defined in the class of each."""

    def __copy__(self) -> Any:
        return _state(self).peer.ask("copy", self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _state(self).peer.ask("deepcopy", self)

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        return _state(self).peer.ask("get", self, "__dict__")


def make_class(peer: Peer, number: int, name: str, where: str, bases: list[Any], operators: list[str]) -> type:
    """What stands for a class: one with bases like its own.

    For an exception of a library it inherits from that, and objects of a third-party class are instances of that.
    """
    package = where.partition(".")[0]
    known = getattr(None if package in _NO_LIBRARIES else sys.modules.get(where), name, None)
    if isinstance(known, type) and issubclass(known, Exception):
        bases = [known]
    immutable = any(issubclass(base, IMMUTABLE) for base in bases)
    kept = [base for base in bases if isinstance(base, RemoteType) or issubclass(base, (*IMMUTABLE, BaseException))]
    namespace: dict[str, Any] = {n: _operator(n) for n in (_TEXTS if immutable else operators) if n in OPERATORS}
    if "__hash__" not in operators:
        namespace["__hash__"] = None
    if name == "coroutine":
        namespace |= {"send": _run_to_end, "throw": _run_to_end, "close": lambda self: None}
    namespace["__doc__"] = property(lambda self: peer.ask("get", self, "__doc__"))
    if isinstance(known, type) and package not in sys.stdlib_module_names:
        namespace["__class__"] = property(lambda self: known)
    namespace["_class_state_"] = _State(peer, number)
    if not any(isinstance(base, RemoteType) for base in kept):
        kept.insert(0, Remote)
    try:
        return type.__new__(RemoteType, name, tuple(kept), namespace)
    except TypeError:  # bases that only fit together with those that are left out
        return type.__new__(RemoteType, name, (Remote,), namespace)


def make_object(peer: Peer, number: int, kind: type, base: Any) -> Any:
    """What stands for an object: its own plain value or exception arguments, or nothing but a name for it."""
    if isinstance(base, datetime.date | datetime.time | datetime.timedelta):
        return base
    made: Any
    if issubclass(kind, BaseException):
        made = kind.__new__(kind, *base)
    elif isinstance(base, IMMUTABLE):
        plain: Any = type(base)
        made = plain.__new__(kind, base)
    else:
        made = Remote.__new__(kind)
    if isinstance(kind, RemoteType):
        object.__setattr__(made, "_state_", _State(peer, number))
    return made


def _made_by_tests(value: Any) -> Any:
    """The same object, as one that the tests have made."""
    if not isinstance(value, Remote) or isinstance(value, (*IMMUTABLE, BaseException)):
        return value
    state, twin = _state(value), object.__new__(type(value))
    object.__setattr__(twin, "_state_", _State(state.peer, state.number, made=True))
    return twin


def _operator(name: str) -> Callable[..., Any]:
    if name in _SPECIAL:
        return _SPECIAL[name]
    operate = _asks(name)

    def compare(self: Any, other: Any) -> Any:
        peer = _state(self).peer
        if not peer.wary or isinstance(other, (Remote, RemoteType)):
            return operate(self, other)
        plain = peer.ask("plain", self)
        return NotImplemented if plain is None or isinstance(plain, Remote) else getattr(plain, name)(other)

    def calculate(self: Any, other: Any) -> Any:
        state = _state(self)
        ask = not state.peer.wary or state.made or isinstance(other, (Remote, RemoteType))
        return operate(self, other) if ask else NotImplemented

    return compare if name in _COMPARISONS else calculate if name in _ARITHMETIC else operate


def _call(self: Any, *arguments: Any, **named: Any) -> Any:
    return _state(self).peer.call(self, arguments, named)


def _next(self: Any) -> Any:
    state = _state(self)
    if not state.ahead and state.error is None:
        count = 1 if state.taken < _PATIENT else _AT_ONCE
        items, error = state.peer.ask("next", self, count)
        state.error = None if error is None else state.peer.raisable(error)
        state.ahead = items[::-1]
    if state.ahead:
        state.taken += 1
        return state.ahead.pop()
    error, state.error = state.error or StopIteration(), None
    raise error


def _run_to_end(self: Any, *_: Any) -> Any:
    raise StopIteration(_state(self).peer.ask("await", self))


def _await(self: Any) -> Iterator[Any]:
    return _state(self).peer.ask("await", self)
    yield  # which makes it the generator that `await` asks for


def _exit(self: Any, kind: Any, error: Any, trace: Any) -> Any:
    return _state(self).peer.ask("operate", "__exit__", self, kind, error, None)


_SPECIAL: dict[str, Callable[..., Any]] = {
    "__contains__": _contains,
    "__call__": _call,
    "__next__": _next,
    "__await__": _await,
    "__exit__": _exit,
}
