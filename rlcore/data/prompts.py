"""Prompts: a row's text or messages in the recipe's template."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from rlcore.entries import Row
from rlcore.recipe.schema import PLACEHOLDER
from rlcore.types import Message

IMAGE_COLUMNS = ("image", "images")
"""TRL's names for columns of images."""


def is_prompt(value: Any) -> TypeGuard[str | Sequence[Mapping[str, Any]]]:
    """Whether a value is a text, or messages of which the last is the user's."""
    if isinstance(value, str) or not isinstance(value, list) or not value:
        return isinstance(value, str)
    whole = all(isinstance(m, Mapping) and all(isinstance(m.get(k), str) for k in ("role", "content")) for m in value)
    return whole and value[-1]["role"] not in ("system", "assistant")


def text_of(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The text, or the concatenated texts of the messages, by which problems are identified."""
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def asked(template: str, row: Row, prompt: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages of a prompt, the last one in `template`, where `{name}` stands for a column of the row."""
    *before, last = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt

    def value(match: re.Match[str]) -> str:
        return last["content"] if match[1] == "prompt" else _written(row[match[1]])

    messages = [{"role": m["role"], "content": m["content"]} for m in before]
    return [*messages, {"role": last["role"], "content": PLACEHOLDER.sub(value, template)}]


def image_columns(rows: Sequence[Row]) -> list[str]:
    """Columns of images, recognised by TRL's names or by the form in which `datasets` returns them."""
    first = rows[0] if rows else {}
    return [name for name, value in first.items() if value and (name in IMAGE_COLUMNS or _is_image(value))]


def _is_image(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _is_image(value[0])
    return isinstance(value, Mapping) and value.keys() == {"bytes", "path"}


def _written(value: Any) -> str:
    """A column's value in a prompt: lists have a line for each entry; other values that are not text become JSON."""
    if isinstance(value, list):
        return "\n".join(map(_written, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
