"""Public data sets with columns of their own: a row of each, turned into the few columns that `rewards.suites` reads.

| data set | its columns | read as |
| --- | --- | --- |
| SYNTHETIC-1 of PrimeIntellect, open-r1 | `verification_info` with `language` and `test_cases` | `tests` |
| CodeContests | `public_tests`, `private_tests`, `generated_tests`; `input_file`, `output_file` | `input_output` |
| MBPP+ | `test_list` with the base tests, `test` with all | `test` |
| BigCodeBench | `complete_prompt`, `test` with a unittest class, `entry_point` | `prompt`, `test` |
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from rewards.program import find_program
from rewards.reward import text_of

COLUMNS = (
    "verification_info", "public_tests", "private_tests", "generated_tests", "input_file", "output_file",
    "complete_prompt",
)  # fmt: skip
_DOING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)
_IDENTIFIER = re.compile(r"\w*")


class BadTests(ValueError):
    """The tests of a row cannot be read, or there are none."""


def usual(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row in the usual columns. Raises BadTests, in one line, for tests that are not for Python programs."""
    if "verification_info" in row:
        return {"tests": _test_cases(parsed(row["verification_info"]))}
    contests = [row[name] for name in ("public_tests", "private_tests", "generated_tests") if name in row]
    if contests:
        files = [row[name] for name in ("input_file", "output_file") if row.get(name)]
        if files:
            raise BadTests(f"the program would have to use the file {files[0]}, not standard input and output")
        both = {name: [text for tests in contests for text in parsed(tests)[name]] for name in ("input", "output")}
        return {"input_output": {"inputs": both["input"], "outputs": both["output"]}}
    usual = {name: value for name, value in row.items() if name not in COLUMNS}
    if row.get("test") and "test_list" in row:
        del usual["test_list"]
    if row.get("entry_point"):
        usual["prompt"] = code_of(row.get("complete_prompt") or row.get("prompt") or "", row["entry_point"])
    return usual


def parsed(value: Any) -> Any:
    """JSON or a Python literal, where it is text."""
    if not isinstance(value, (str, bytes)):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return ast.literal_eval(value.decode() if isinstance(value, bytes) else value)


def code_of(prompt: Any, entry_point: str) -> str:
    """What of a prompt a program continues: all of it, the code in it that begins the entry point, or nothing."""
    text = prompt if isinstance(prompt, str) else text_of(prompt)
    if _is_code(text):
        return text
    found = find_program(text, {_IDENTIFIER.match(entry_point)[0]})  # type: ignore[index]
    return found + "\n" if _is_code(found) else ""


def _is_code(source: str) -> bool:
    """Whether this is Python, perhaps with a body to come at its end, and more than a word that is so by chance."""
    for end in ("", "\n    pass"):
        try:
            tree = ast.parse(source + end)
        except (SyntaxError, ValueError):
            continue
        return any(isinstance(node, _DOING) for node in tree.body)
    return False


def _test_cases(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    language = info.get("language") or "python"
    if language.lower() not in ("python", "python3", "py"):
        raise BadTests(f"the tests are for programs in {language}; only Python is judged")
    return parsed(info.get("test_cases") or info.get("tests") or [])
