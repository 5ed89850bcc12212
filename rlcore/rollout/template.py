"""A tokenizer's chat template: from messages to text and ids, with checks for silent failures."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlcore.errors import UserError
from rlcore.types import Message

MARK = "⁅REPLY⁆"
OPEN_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>\s*\Z", re.IGNORECASE)
"""The end of a prompt whose reply begins inside a thinking block."""


class Template:
    """Renders and encodes messages. Content is passed as text, or in parts to templates of vision models."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        """Raises UserError for a template that omits the user's message."""
        self.tokenizer = tokenizer
        self._in_parts = False
        if failure := self._failure():
            self._in_parts = True
            if self._failure():
                raise failure
        opened = OPEN_THOUGHT.search(self.render([{"role": "user", "content": MARK}]))
        self.open_thought = opened[0] if opened else ""
        """The thinking tag at the end of every prompt, with the space after it; empty if there is none."""

    def render(self, messages: Sequence[Message], *, asking: bool = True) -> str:
        """The text of a conversation; with `asking` it ends where the assistant's next turn begins.

        Raises UserError if the template fails.
        """
        shown: list[Any] = list(messages)
        if self._in_parts:
            shown = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        try:
            return str(self.tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=asking))
        except Exception as error:  # a template is a program
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(f"the chat template cannot take the turns {roles}: {error}") from None

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def places(self, text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
        """The places in `encode(text)` of the tokens that lie within these spans of characters."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [
            at
            for at, (start, end) in enumerate(offsets)
            if start < end and any(first <= start and end <= last for first, last in spans)
        ]

    def encode_after(self, text: str, before: str = MARK) -> tuple[int, ...]:
        """The ids of a text that continues another, without the space that some tokenizers put before a text."""
        first, whole = self.encode(before), self.encode(before + text)
        return whole[len(first) :] if whole[: len(first)] == first else self.encode(text)

    def control_tokens(self, messages: Iterable[Message]) -> set[str]:
        """Control tokens spelled out in the messages, which the model would not read as text."""
        return {found for message in messages for found in self._control_pattern.findall(message["content"])}

    def notes(self, question: Sequence[Message], stop_ids: Iterable[int]) -> list[str]:
        """Warnings about a template that can be trained with."""
        told: list[str] = []
        try:
            text = self.render([*question, {"role": "assistant", "content": MARK}], asking=False)
        except UserError:  # it takes one turn: there is nothing after an attempt
            return told
        before, _, after = text.partition(MARK)
        end = self.encode_after(after)[:1]
        if self._control.keys() & set(end) and not set(end).intersection(stop_ids):
            stops = ", ".join(self.tokenizer.convert_ids_to_tokens(sorted(stop_ids)))
            told.append(
                f"chat template: turns end with {self.tokenizer.decode(list(end))}, at which no attempt stops (that is "
                f"{stops}): make it eos_token of the tokenizer, or add it to eos_token_id of generation_config.json"
            )
        opened = self.render(question)
        if before != opened and opened == self.render(question, asking=False):
            told.append(
                f"chat template: it pays no heed to add_generation_prompt, so an attempt comes right after "
                f"{opened[-20:]!r}, without the head of the assistant's turn, {before.removeprefix(opened)[:40]!r}"
            )
        return told

    @cached_property
    def _control(self) -> dict[int, str]:
        return {at: token.content for at, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._control.values(), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _failure(self) -> UserError | None:
        """Why the template does not render content in its present form; None if it does."""
        try:
            shown = MARK.casefold() in self.render([{"role": "user", "content": MARK}]).casefold()
        except UserError as error:
            return error
        return None if shown else UserError("the chat template leaves out what the user says")
