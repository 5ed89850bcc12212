"""Rows of many data sets in the few columns that `rewards.suites` reads."""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rewards.program import find_program
from rewards.reward import text_of

COLUMNS = (
    "verification_info", "public_tests", "private_tests", "generated_tests", "input_file", "output_file",
    "complete_prompt",
)  # fmt: skip
_MAX_UNPACKED = 256 << 20  # bytes of compressed private tests
_DOING = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)  # what no prose is by chance


class BadTests(ValueError):
    """The tests of a row cannot be read, or there are none."""


def usual(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row in the usual columns. Raises BadTests, in one line, for tests that are not for Python programs."""
    if "verification_info" in row:
        return {"tests": _test_cases(parsed(row["verification_info"]))}
    if "public_test_cases" in row or "private_test_cases" in row:
        cases = [*parsed(row.get("public_test_cases") or []), *_private(row.get("private_test_cases") or "[]")]
        return {"tests": cases, "metadata": row.get("metadata")}
    lists = [parsed(row[name]) for name in ("public_tests", "private_tests", "generated_tests") if row.get(name)]
    contests = [tests for tests in lists if isinstance(tests, Mapping)]  # public tests may be assertions, too
    if contests:
        files = [row[name] for name in ("input_file", "output_file") if row.get(name)]
        if files:
            raise BadTests(f"the program would have to use the file {files[0]}, not standard input and output")
        both = {name: [text for tests in contests for text in tests[name]] for name in ("input", "output")}
        return {"input_output": {"inputs": both["input"], "outputs": both["output"]}}
    prompt, function = row.get("complete_prompt") or row.get("prompt") or "", entry_name(row.get("entry_point") or "")
    return {**row, "prompt": _code_of(prompt, function) if function else ""}


def entry_name(entry_point: str) -> str:
    """The name that a program must define: Solution, of `Solution().f`."""
    return entry_point.partition("(")[0].partition(".")[0]


def parsed(value: Any) -> Any:
    """JSON or a Python literal, where it is text."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return ast.literal_eval(value.decode() if isinstance(value, bytes) else value)


def completed(prompt: str) -> ast.Module:
    """A prompt as a module, with a body for the function that it may end in. Raises SyntaxError if it is no Python."""
    try:
        return ast.parse(prompt)
    except ValueError as error:
        raise SyntaxError(str(error)) from error
    except SyntaxError:
        return ast.parse(f"{prompt}\n    pass")


def _code_of(prompt: Any, function: str) -> str:
    """What of a prompt a program continues: all of it, the code in it that begins the function, or nothing."""
    text = prompt if isinstance(prompt, str) else text_of(prompt)
    if any(isinstance(node, _DOING) for node in _statements(text)):
        return text
    fenced = find_program(text, {function}) + "\n"
    return fenced if any(getattr(node, "name", "") == function for node in _statements(fenced)) else ""


def _statements(source: str) -> list[ast.stmt]:
    with suppress(SyntaxError):
        return completed(source).body
    return []


def _test_cases(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    language = info.get("language") or "python"
    if language.lower() not in ("python", "python3", "py"):
        raise BadTests(f"the tests are for programs in {language}; only Python is judged")
    return parsed(info.get("test_cases") or info.get("tests") or [])


def _private(packed: str) -> Any:
    """LiveCodeBench's hidden tests: JSON, or JSON inside pickle inside zlib inside base64."""
    try:
        return json.loads(packed)
    except ValueError:
        pass
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.b64decode(packed), _MAX_UNPACKED)
    return parsed(_PlainUnpickler(io.BytesIO(data)).load())


class _PlainUnpickler(pickle.Unpickler):
    """Reads a pickled string. A pickle that names any class or function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"private tests may not contain {module}.{name}")
