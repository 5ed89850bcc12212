"""Token-exact conversations: the ids added before each attempt, appended to the ids that were sampled.

Nothing sampled is ever decoded and encoded again. `Conversation` proves on load, for the tokenizer and chat template in
use, whether appending gives the same ids as rendering the whole conversation, and says where it does not.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rich.progress import track
from transformers import PreTrainedTokenizerBase

from rlcore.data.tasks import output_spans
from rlcore.entries import KINDS, Script
from rlcore.errors import UserError
from rlcore.kinds.instructions import INSTRUCTIONS
from rlcore.recipe import schema
from rlcore.rollout.stopping import StopTexts
from rlcore.rollout.template import MARK, Template
from rlcore.rollout.token_counts import TokenCounts
from rlcore.types import Message, Problem

MAX_MESSAGE_TOKENS = 256
"""The length at which a message written during the conversation is cut."""
PART = 2000
"""Prompts tokenised together."""
QUESTION: list[Message] = [{"role": "user", "content": "What is 2 + 3?"}]
PROBES = {
    "a plain answer": "The answer is 5.",
    "an answer with thinking": "<think>\n2 + 3 is 5.\n</think>\n\nThe answer is 5.",
    "an answer that ends in a space": "The answer is 5. ",
}


@dataclass(frozen=True, slots=True)
class TemplateCheck:
    """The probes on which appending differs from rendering anew, and how; none if the template is exact."""

    differences: tuple[str, ...]

    @property
    def exact(self) -> bool:
        return not self.differences


def read_script(section: schema.ConversationConfig) -> Script:
    """The script of a recipe's conversation, with named instructions and the kind's own texts filled in."""
    instruction = INSTRUCTIONS.get(section.instruction, section.instruction)
    return Script(section.attempts, instruction, section.review or KINDS[section.kind].review)


class Conversation:
    """Renders the first prompt of a problem and the tokens between replies of one kind of conversation."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, section: schema.ConversationConfig, stop_ids: Sequence[int]):
        """Raises UserError for a template that cannot take a second user turn."""
        self.tokenizer = tokenizer
        self.attempts, self.replies = section.attempts, section.replies
        self.kind_name, self.kind = section.kind, KINDS[section.kind]
        self.script = read_script(section)
        self.max_prompt_tokens = section.max_prompt_tokens
        self.max_attempt_tokens = section.max_attempt_tokens
        self.stop_ids = frozenset(stop_ids)
        self.template = Template(tokenizer)
        self._tail_ids = lru_cache(maxsize=256)(self._encode_tail)
        own = self.kind.says(self.attempts)
        messages = [message for message in (self.script.instruction, self.script.review, *own) if message]
        longest = max(len(self._tail_ids(message)) for message in messages) if self.attempts > 1 else 0
        quoted = min(MAX_MESSAGE_TOKENS, self.max_attempt_tokens) if self.kind.quotes else 0
        self.max_message_tokens = longest + (MAX_MESSAGE_TOKENS if self.kind.writes else quoted)
        self.check = self._check() if self.attempts > 1 else TemplateCheck(())
        differences = (f"chat template, {difference}" for difference in self.check.differences)
        self.notes = (*self.template.notes(QUESTION, self.stop_ids), *differences)
        """Notes for the user on the template, one line each."""

    def open(self, problem: Problem) -> tuple[int, ...]:
        """The prompt of attempt 1. Raises UserError if it is longer than `max_prompt_tokens`."""
        ids = self.template.encode(self.template.render(list(problem.messages)))
        if len(ids) > self.max_prompt_tokens:
            raise UserError(
                f"the prompt of problem {problem.id} has {len(ids)} tokens, more than "
                f"conversation.max_prompt_tokens {self.max_prompt_tokens}"
            )
        return ids

    def shown_outputs(self, problem: Problem) -> list[int]:
        """The places in `open(problem)` of what its demonstrations show (`rlcore.data.tasks.output_spans`)."""
        text = self.template.render(list(problem.messages))
        return self.template.places(text, output_spans(problem.columns, text))

    def prompt_tokens(self, problems: Sequence[Problem], *, shown: bool = False) -> list[int]:
        """Tokens of each problem's first prompt; tokenised once, in parallel, under a progress bar if `shown`."""
        counts, counter = list[int](), TokenCounts(self.tokenizer)
        starts = range(0, len(problems), PART)  # all at once, the ids of a million prompts would fill the memory
        shown = shown and len(starts) > 1 and sys.stdout.isatty()
        for start in track(starts, "tokenizing prompts", transient=True, disable=not shown):
            texts = [self.template.render(list(problem.messages)) for problem in problems[start : start + PART]]
            counts += counter.of(texts)
        return counts

    def follow(self, finish: Literal["stop", "length"], message: str | None = None) -> tuple[int, ...]:
        """The tokens between two replies: the message (by default the instruction), and the end of turn if not sampled.

        A message longer than the room set aside for it loses its beginning.
        """
        message = self.script.instruction if message is None else message
        tail_ids = self._tail_ids(message)
        while len(tail_ids) > self.max_message_tokens:
            message = message[len(message) // 8 + 1 :]
            tail_ids = self._encode_tail(message)
        return tail_ids[self._end(tail_ids) :] if finish == "stop" else tail_ids

    def _end(self, tail_ids: tuple[int, ...]) -> int:
        """How many tokens of a tail a sampled end of turn stands for: up to its end token, if only space is before."""
        at = next((at for at, token in enumerate(tail_ids) if token in self.stop_ids), None)
        return 0 if at is None or self.tokenizer.decode(list(tail_ids[:at])).strip() else at + 1

    def said(self, response_ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(response_ids), skip_special_tokens=True))

    def text(self, response_ids: Sequence[int], stop: StopTexts | None = None) -> str:
        """The text of an attempt as rewards read it: cut before a stop text, after the thinking tag of the template."""
        said = self.said(response_ids)
        return self.template.open_thought + (stop.before(said) if stop else said)

    @property
    def max_tokens(self) -> int:
        """An upper bound on the length of a whole conversation."""
        between = (self.replies - 1) * self.max_message_tokens
        return self.max_prompt_tokens + self.replies * self.max_attempt_tokens + between

    def _encode_tail(self, message: str) -> tuple[int, ...]:
        """The tokens that follow a reply in a rendered conversation when `message` comes next."""
        text = self.template.render(_two_turns(MARK, message))
        _, mark, tail = text.partition(MARK)
        own = message.strip()
        if not mark or own not in tail:
            why = "it drops an earlier turn"
            if own not in text and own.casefold() in text.casefold():
                why = "it writes turns in other letters, so what it renders is not what was said"
            raise UserError(f"the chat template cannot take a second user turn: {why}")
        return self.template.encode_after(tail)

    def _check(self) -> TemplateCheck:
        first, tail_ids = self.template.render(QUESTION), self._tail_ids(self.script.instruction)
        sampled_end_ids = tail_ids[max(self._end(tail_ids) - 1, 0) :]
        differences = []
        for name, attempt in PROBES.items():
            attempt_ids = self.template.encode_after(attempt, first)
            if self.tokenizer.unk_token_id in attempt_ids:  # such an answer is never sampled
                continue
            rendered = self.template.encode(self.template.render(_two_turns(attempt, self.script.instruction)))
            for after_ids in dict.fromkeys((tail_ids, sampled_end_ids)):
                appended = self.template.encode(first) + attempt_ids + after_ids
                if appended != rendered:
                    differences.append(f"{name}: {self._first_difference(appended, rendered)}")
                    break
        return TemplateCheck(tuple(differences))

    def _first_difference(self, appended: tuple[int, ...], rendered: tuple[int, ...]) -> str:
        pairs, shorter = zip(appended, rendered, strict=False), min(len(appended), len(rendered))
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
        mine, theirs = (self.tokenizer.decode(list(ids[at : at + 6])) for ids in (appended, rendered))
        return f"at token {at} the template would write {theirs!r}; what was sampled, {mine!r}, is kept"


def _two_turns(reply: str, message: str) -> list[Message]:
    return [*QUESTION, {"role": "assistant", "content": reply}, {"role": "user", "content": message}]
