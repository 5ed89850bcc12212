"""Token-exact conversations: what is put before each attempt, as ids appended to the ids that were sampled.

Nothing sampled is ever decoded and encoded again. `Conversation` proves on load, for the tokenizer and chat template in
use, whether appending gives the same ids as rendering the whole conversation, and says where it does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rlcore.recipe import schema
from rlcore.types import Message, Problem, UserError

MARK = "ATTEMPT"
PROBES = {
    "a plain answer": "The answer is 5.",
    "an answer with thinking": "<think>\n2 + 3 is 5.\n</think>\n\nThe answer is 5.",
    "an answer that ends in a space": "The answer is 5. ",
}


@dataclass(frozen=True, slots=True)
class TemplateCheck:
    """What appending does that rendering anew would not; `differences` is empty when the two agree on every probe."""

    differences: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return not self.differences


class Conversation:
    """Renders the first prompt of a problem and the tokens between attempts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, section: schema.Conversation, stop_ids: Sequence[int]):
        """Raises UserError for a template that cannot take a second user turn."""
        self.tokenizer = tokenizer
        self.attempts = section.attempts
        self.instruction = section.instruction
        self.max_prompt_tokens = section.max_prompt_tokens
        self.max_attempt_tokens = section.max_attempt_tokens
        self.stop_ids = frozenset(stop_ids)
        question: list[Message] = [{"role": "user", "content": "What is 2 + 3?"}]
        self._tail_ids = self._encode(self._tail_text(question)) if self.attempts > 1 else ()
        self.check = self._check(question) if self.attempts > 1 else TemplateCheck(())

    def open(self, problem: Problem) -> tuple[int, ...]:
        """The prompt of attempt 1. Raises UserError when it is longer than `max_prompt_tokens`."""
        ids = self._encode(self._render(list(problem.messages)))
        if len(ids) > self.max_prompt_tokens:
            raise UserError(
                f"the prompt of problem {problem.id} has {len(ids)} tokens, more than "
                f"conversation.max_prompt_tokens {self.max_prompt_tokens}"
            )
        return ids

    def follow(self, finish: Literal["stop", "length"]) -> tuple[int, ...]:
        """The tokens between an attempt and the next: the instruction, and the end of turn if it was not sampled."""
        sampled_end = finish == "stop" and self._tail_ids[0] in self.stop_ids
        return self._tail_ids[1:] if sampled_end else self._tail_ids

    def text(self, response_ids: Sequence[int]) -> str:
        """What a reward reads of an attempt."""
        return str(self.tokenizer.decode(list(response_ids), skip_special_tokens=True))

    @property
    def max_tokens(self) -> int:
        """An upper bound of a whole conversation's length."""
        return self.max_prompt_tokens + self.attempts * (self.max_attempt_tokens + len(self._tail_ids))

    def _render(self, messages: list[Message]) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except (TemplateError, ValueError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(f"the chat template cannot take the turns {roles}: {error}") from None

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _tail_text(self, question: list[Message]) -> str:
        """The text that follows attempt 1 in a rendered conversation of two attempts."""
        text = self._render(self._two_turns(question, MARK))
        _, mark, tail = text.rpartition(MARK)
        if not mark or self.instruction.strip() not in tail:
            raise UserError("the chat template cannot take a second user turn: it drops an earlier turn")
        return tail

    def _two_turns(self, question: list[Message], attempt: str) -> list[Message]:
        return [
            *question,
            {"role": "assistant", "content": attempt},
            {"role": "user", "content": self.instruction},
        ]

    def _check(self, question: list[Message]) -> TemplateCheck:
        first = self._render(question)
        differences = []
        for name, attempt in PROBES.items():
            appended = self._encode(first) + self._encode(attempt) + self._tail_ids
            rendered = self._encode(self._render(self._two_turns(question, attempt)))
            if appended != rendered:
                differences.append(f"{name}: {self._first_difference(appended, rendered)}")
        return TemplateCheck(tuple(differences))

    def _first_difference(self, appended: tuple[int, ...], rendered: tuple[int, ...]) -> str:
        at = next((i for i, (a, b) in enumerate(zip(appended, rendered, strict=False)) if a != b), None)
        at = min(len(appended), len(rendered)) if at is None else at
        mine, theirs = (self.tokenizer.decode(list(ids[at : at + 6])) for ids in (appended, rendered))
        return f"at token {at} the template would write {theirs!r}; what was sampled, {mine!r}, is kept"
