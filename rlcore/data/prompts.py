"""What the policy is asked: a row's text or messages, in the recipe's template over the row's columns."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from rlcore.entries import Row
from rlcore.recipe.schema import PLACEHOLDER
from rlcore.types import Message

IMAGE_COLUMNS = ("image", "images")
"""What TRL calls columns of images."""


def is_prompt(value: Any) -> TypeGuard[str | Sequence[Mapping[str, Any]]]:
    """Whether a value is text, or the messages of a conversation that the user speaks last in."""
    if isinstance(value, str) or not isinstance(value, list) or not value:
        return isinstance(value, str)
    whole = all(isinstance(m, Mapping) and all(isinstance(m.get(k), str) for k in ("role", "content")) for m in value)
    return whole and value[-1]["role"] not in ("system", "assistant")


def text_of(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The text, or all texts of the messages one after the other: what a problem is told from others by."""
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def asked(template: str, row: Row, prompt: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages of a prompt, the last of them within `template`, in which `{name}` stands for the row's column."""
    *before, last = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt

    def value(match: re.Match[str]) -> str:
        return last["content"] if match[1] == "prompt" else _written(row[match[1]])

    messages = [{"role": m["role"], "content": m["content"]} for m in before]
    return [*messages, {"role": last["role"], "content": PLACEHOLDER.sub(value, template)}]


def image_columns(rows: Sequence[Row]) -> list[str]:
    """Columns that hold images: by TRL's names for them, or as `datasets` gives them."""
    first = rows[0] if rows else {}
    return [name for name, value in first.items() if value and (name in IMAGE_COLUMNS or _is_image(value))]


def _is_image(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _is_image(value[0])
    return isinstance(value, Mapping) and value.keys() == {"bytes", "path"}


def _written(value: Any) -> str:
    """A column's value in a prompt: a list is a line for each entry, what is no text is JSON."""
    if isinstance(value, list):
        return "\n".join(map(_written, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
