"""Two processes that use each other's objects: every operation on one is a question to the process that keeps it.

The tests, in one sandbox, and the program, in another, are peers. A question names an operation and its operands; the
answer is a plain value, an exception, or a reference to an object that stays. While a peer waits for its answer it
answers questions, so that a function of the tests can be handed to the program and called there. Arguments that a call
has changed in place come back with its answer.

The tests' peer is wary: the program may only call what it was handed, read its public attributes and apply operators.
"""

from __future__ import annotations

import copy
import sys
import threading
import types
from collections.abc import Callable
from itertools import islice
from typing import Any

from rewards.sandbox.remote import OPERATORS, Remote, RemoteType, label, make_class, make_object, reference
from rewards.sandbox.values import IMMUTABLE, MAX_LENGTH, MUTABLE, base_of, decoder, dumps
from rewards.verdict import one_line
from rewards.wire import Frames, send_frame

QUESTION, VALUE, CHANGED, RAISED, PRINTED = b"?", b"v", b"w", b"e", b"p"
_ANSWER_LIMIT = MAX_LENGTH + 64
_FLAT = {bool, int, float, complex, str, bytes, type(None)}
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.GeneratorType,
         types.CoroutineType, types.AsyncGeneratorType, types.CodeType, types.FrameType, types.TracebackType,
         type)  # fmt: skip
_ASKED_BY_PROGRAMS = {"call", "get", "set", "operate", "next", "plain", "copy", "deepcopy"}
_FORMATTING = {"format", "format_map"}  # which read any attribute that a text names


class Ended(BaseException):
    """The other process is gone, or does not keep to the protocol. No test can take it for an exception of its own."""


class Foreign(Exception):
    """Stands for an exception of the program that would do more than fail here, such as end a loop."""


class Peer:
    """One end of a channel between two processes. `root` is the module whose names the other may ask for."""

    def __init__(self, channel: int, frames: Frames, root: Any = None, wary: bool = False) -> None:
        self.root, self.wary = root, wary
        self.makes = False  # whether objects of the other's classes are made here, to be tested
        self.last_call: tuple[Any, ...] = ()  # of a function of the other's: that, its arguments, what came of it
        self.raised: BaseException | None = None  # the latest exception that came from the other
        self._channel, self._frames = channel, frames
        self._decode = decoder(self._resolve)
        self._lock = threading.RLock()
        self._kept: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._described: dict[int, None] = {}
        self._known: dict[int, Any] = {}

    def serve(self) -> None:
        """Answer questions until the other end hangs up."""
        try:
            while True:
                self._answer(self._receive()[1])
        except Ended:
            pass

    def ask(self, question: str, *operands: Any) -> Any:
        """Put a question and return the value that answers it, or raise the exception that does."""
        return self._ask(question, *operands)[1]

    def call(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call an object of the other's; what that changes in the arguments is changed here."""
        kind, value = self._ask("call", function, arguments, named)
        if kind == CHANGED:
            value, changed, same = value
            lent = [*arguments, *named.values()]
            for position, new in changed.items():
                _updated(lent[position], new)
            value = lent[same] if same is not None else value
        self.last_call = function, arguments, named, "gave", value
        return value

    def shown_call(self) -> str:
        """What the latest call of a function of the other's gave or raised, in words; "" if there was none."""
        if not self.last_call:
            return ""
        function, arguments, named, verb, value = self.last_call
        shown = [*map(_shown, arguments), *(f"{name}={_shown(item)}" for name, item in named.items())]
        outcome = _shown(value) if verb == "gave" else one_line(value)
        return f"{label(function)}({', '.join(shown)})"[:100] + f" {verb} {outcome}"

    def printed(self, stream: int, text: str) -> None:
        """Tell the other what was written to a standard stream here."""
        send_frame(self._channel, PRINTED + dumps((stream, text)))

    def _ask(self, question: str, *operands: Any) -> tuple[bytes, Any]:
        with self._lock:
            message = QUESTION + self._dumps((question, *operands))
            try:
                send_frame(self._channel, message)
            except OSError as error:
                raise Ended("the program ended") from error
            while True:
                kind, content = self._receive()
                if kind == QUESTION:
                    self._answer(content)
                elif kind == RAISED:
                    self.raised = self.raisable(content)
                    if question == "call":
                        self.last_call = *operands, "raised", self.raised
                    raise self.raised from None
                elif kind in (VALUE, CHANGED):
                    return kind, content

    def _receive(self) -> tuple[bytes, Any]:
        try:
            frame = self._frames.receive(_ANSWER_LIMIT if self.wary else None)
            kind, content = frame[:1], self._decode(frame[1:])
        except (EOFError, OSError) as error:
            raise Ended("the program ended") from error
        except ValueError as error:
            raise Ended("the program broke into the conversation with its tests") from error
        if kind == PRINTED:
            stream, text = content
            print(text, end="", file=sys.stdout if stream == 1 else sys.stderr)
        return kind, content

    def _answer(self, question: Any) -> None:
        try:
            name, *operands = question
            if self.wary:
                self._allow(name, *operands)
            answer = self._called(*operands) if name == "call" else VALUE + self._dumps(_ANSWERS[name](self, *operands))
        except Exception as error:
            answer = RAISED + self._dumps_error(error)
        except BaseException as error:
            if self.wary:
                raise  # the tests' own runner ends them
            answer = RAISED + self._dumps_error(error)
        send_frame(self._channel, answer)

    def _allow(self, question: str, *operands: Any) -> None:
        """Raises AttributeError for what the program may not ask of the tests."""
        if question == "input":
            return
        target, *others = operands[question == "operate" :]
        allowed = id(target) in self._numbers and question in _ASKED_BY_PROGRAMS
        if question in ("get", "set"):
            name = others[0]
            allowed &= not (isinstance(target, _CODE) or name.startswith("_") or name in _FORMATTING)
        if question == "set":  # what a class of the tests' does is not to be changed
            allowed &= not callable(getattr(type(target), name, None))
        if not allowed:
            raise AttributeError(f"the program may not {question} this of the tests")

    def _called(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> bytes:
        lent = {n: value for n, value in enumerate([*arguments, *named.values()]) if type(value) in MUTABLE}
        before = {n: self._dumps(value) for n, value in lent.items()}
        value = function(*arguments, **named)
        changed = {n: value for n, value in lent.items() if self._dumps(value) != before[n]}
        same = next((n for n, argument in lent.items() if argument is value), None)
        if changed or same is not None:
            return CHANGED + self._dumps((None if same is not None else value, changed, same))
        return VALUE + self._dumps(value)

    def _dumps(self, value: Any) -> bytes:
        known = len(self._described)
        try:
            return dumps(value, self._refer)
        except BaseException:
            while len(self._described) > known:  # the other will not have read of these classes
                self._described.popitem()
            raise

    def _dumps_error(self, error: BaseException) -> bytes:
        try:
            return self._dumps(error)
        except Exception:
            return dumps(RuntimeError(one_line(error)))

    def raisable(self, error: Any) -> BaseException:
        """What to raise here for an exception of the other's."""
        if not isinstance(error, BaseException):
            raise Ended("the program broke into the conversation with its tests")
        odd = isinstance(error, (StopIteration, StopAsyncIteration)) or not isinstance(error, (Exception, SystemExit))
        return Foreign(one_line(error)) if odd and self.wary else error

    def _keep(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self._kept))
        if number == len(self._kept):
            self._kept.append(value)
        return number

    def _refer(self, value: Any) -> list[Any]:
        peer, number = reference(value)
        if peer is self:
            return ["yours", number]
        number = self._keep(value)
        if not isinstance(value, type):
            base = base_of(value) if isinstance(value, IMMUTABLE) else getattr(value, "args", None)
            return ["object", number, type(value), base if isinstance(value, (*IMMUTABLE, BaseException)) else None]
        if number in self._described:
            return ["class", number]
        self._described[number] = None
        operators = [name for name in OPERATORS if getattr(value, name, None) is not None]
        return ["class", number, value.__name__, str(value.__module__), list(value.__bases__), operators]

    def _resolve(self, content: list[Any]) -> Any:
        kind, number, *rest = content
        if kind == "yours":
            return self._kept[number]
        if number not in self._known:
            make = make_class if kind == "class" else make_object
            self._known[number] = make(self, number, *rest)
        return self._known[number]


def _names(peer: Peer, names: list[str]) -> dict[str, Any]:
    """Those of the names that the module has, with what they stand for."""
    return {name: getattr(peer.root, name) for name in names if hasattr(peer.root, name)}


def _next(_: Peer, iterator: Any, count: int) -> tuple[list[Any], BaseException | None]:
    """At most `count` items, and the exception after them if there is one."""
    items: list[Any] = []
    try:
        items += islice(iterator, 1)
        while items and len(items) < count:
            following = list(islice(iterator, 1))
            if not following:
                break
            items += following
    except Exception as error:
        return items, error
    return items, None


def _run_awaitable(_: Peer, awaitable: Any) -> Any:
    import asyncio  # too large for those who do not need it

    async def awaited() -> Any:
        return await awaitable

    return asyncio.run(awaited())


_ANSWERS: dict[str, Callable[..., Any]] = {
    "root": lambda peer: peer.root,
    "names": _names,
    "own": lambda peer, name: getattr(getattr(peer.root, name, None), "__module__", "") == peer.root.__name__,
    "get": lambda _, value, name: getattr(value, name),
    "set": lambda _, value, name, item: setattr(value, name, item),
    "delete": lambda _, value, name: delattr(value, name),
    "dir": lambda _, value: dir(value),
    "operate": lambda _, name, *operands: OPERATORS[name](*operands),
    "next": _next,
    "copy": lambda _, value: copy.copy(value),
    "deepcopy": lambda _, value: copy.deepcopy(value),
    "await": _run_awaitable,
    "plain": lambda _, value: base_of(value),
    "input": lambda _, prompt: input(prompt),
}


def _updated(old: Any, new: Any) -> Any:
    """The new value, in the place of the old one where both are containers of one kind."""
    if type(old) is not type(new) or type(old) not in MUTABLE:
        return new
    if isinstance(old, list):
        old[:] = [*map(_updated, old, new), *new[len(old) :]]
    elif isinstance(old, dict):
        items = {key: _updated(old.get(key), item) for key, item in new.items()}
        old.clear()
        old.update(items)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    else:
        old[:] = new
    return old


def _shown(value: Any) -> str:
    kind = type(value)
    if (kind is int and value.bit_length() > 256) or isinstance(value, (Remote, RemoteType)):
        return f"a value of type {kind.__name__}"
    return repr(value)[:80] if kind in _FLAT else f"a value of type {kind.__name__}"
