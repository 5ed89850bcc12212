"""What a conversation kind is: a coroutine that asks the policy, turn by turn, until the conversation has ended."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from rlcore.types import Problem, Role, Turn


class Ask(Protocol):
    """Puts a user message before the policy and waits for its reply."""

    async def __call__(
        self,
        message: str | None,
        role: Role | Callable[[str], Role] = "attempt",
        *,
        claim: Callable[[str], bool | None] | None = None,
        last: bool = False,
    ) -> Turn:
        """The reply to `message`; None is the problem itself. `role` and `claim` may be read from the reply's text.

        `last` promises that nothing is asked after it.
        """


@dataclass(frozen=True, slots=True)
class Script:
    """What a kind reads of a recipe: the most attempts, and the messages between them."""

    attempts: int
    instruction: str
    review: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind's coroutine, its own text for `conversation.review`, and why it cannot take a problem ("": it can)."""

    run: Callable[[Problem, Ask, Script], Awaitable[None]]
    review: str = ""
    refusal: Callable[[Problem], str] = lambda problem: ""
