"""Seeded damage: values that a recipe, a data row or a file may hold by mistake."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

SMALL: tuple[Any, ...] = (
    *(None, "", " ", "x", "auto", "none", "./x", "../x", "~", "a b", "\N{GRINNING FACE}", "{prompt}", "a\nb", "\x00"),
    *(0, -1, 1, 2, 3, 7, 0.5, -0.5, 1.0, 1e-9, True, False, [], {}, [1], [0.1, 0.1], ["a"], {"a": 1}, [[]], [None]),
    *("\ud83d", "\udc00x", "x" * 300),
)
"""Values that are quick to run with, should a recipe take them."""
LARGE: tuple[Any, ...] = (float("nan"), float("inf"), float("-inf"), 1e300, 10**9, 10**40, "x" * 10_000, [[[[1]]]])
MISWRITTEN = (
    *("[", "{a: ", "'", "[" * 300, "=", "*b", "<<: 1", "? [1]\n: 2", "!!set {a}", "!!bool x", "!!int x", "!x 1"),
    *("!!python/object:x", "&a *a", "&a {b: *a}", "2024-01-01", "2024-99-99", "0x1F", ".inf", '"\\UFFFFFFFF"'),
)
"""Values of overrides that are not what YAML calls one, or one of a rare kind."""
NOISE = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"{",
    b"}",
    b"[",
    b'"',
    b":",
    b"\n",
    b"null",
    b"NaN",
    b"\t- ",
    b"1e999",
    b"{{",
    b"%}",
)


def places(values: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested dicts and lists."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in entries:
        yield (*at, key)
        yield from places(value, (*at, key))


def mutate(values: Any, rng: Random, pool: tuple[Any, ...]) -> str:
    """Changes one value of nested dicts and lists in place, if there is one; returns what was done."""
    found = list(places(values))
    if not found:
        return "nothing"
    *path, last = rng.choice(found)
    here: Any = values
    for key in path:
        here = here[key]
    where = ".".join(map(str, (*path, last)))
    change = rng.randrange(8)
    if change == 0:
        del here[last]
        return f"{where} deleted"
    if change == 1 and isinstance(here, dict):
        name = rng.choice([f"{last}x", str(last)[:-1], 3, "", None])
        here[name] = here.pop(last)
        return f"{where} renamed {name!r}"
    here[last] = rng.choice(pool)
    return f"{where} = {here[last]!r}"[:200]


def override(values: dict[str, Any], rng: Random, pool: tuple[Any, ...]) -> str:
    """`key.sub=value` at a place that exists, or nearly."""
    dotted = ".".join(map(str, rng.choice(list(places(values)))))
    dotted = rng.choice([dotted] * 8 + [f"{dotted}.x", f"{dotted}.0", dotted[:-1], f".{dotted}", "", f"{dotted}."])
    text = rng.choice([json.dumps(rng.choice(pool)), *MISWRITTEN])
    return f"{dotted}{rng.choice(['='] * 9 + [''])}{text}"


def scramble(text: bytes, rng: Random) -> bytes:
    """A file after an accident: cut, emptied, or with some bytes removed, repeated or replaced."""
    at = rng.randrange(len(text) + 1)
    to = min(len(text), at + rng.randrange(1, 20))
    noise = rng.choice(NOISE)
    return rng.choice(
        [text[:at], b"", text[:at] + noise + text[to:], text[:to] + text[at:], noise + text, text + noise]
    )


def damage_file(folder: Path, rng: Random) -> str:
    """Scrambles, removes, copies or replaces one file below `folder`; returns what was done."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    change = rng.randrange(8)
    if change == 0:
        path.unlink()
    elif change == 1:
        path.unlink()
        path.mkdir()
    elif change == 2:
        place = path if path.parent == folder else path.parent
        place.rename(place.with_name(rng.choice([f"{place.name}.bak", f"{place.name}-2", "x"])))
    elif change == 3 and path.suffix in LINES:
        path.write_text(json.dumps(rng.choice(SMALL)))
    elif change in (4, 5, 6) and path.suffix in LINES:
        values = [json.loads(line) for line in LINES[path.suffix](path.read_text())]
        mutate(values, rng, SMALL + LARGE[:5])
        path.write_text("\n".join(map(json.dumps, values)))
    else:
        path.write_bytes(scramble(path.read_bytes(), rng))
    return f"{path.relative_to(folder)} ({change})"


LINES = {".json": lambda text: [text], ".jsonl": str.splitlines}
"""The JSON texts in a file, by its suffix."""
