"""An engine that says what a script says, and remembers what it was asked."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from rewards import Verdict
from rlcore.policy.scratch import scratch_tokenizer
from rlcore.recipe import schema
from rlcore.rollout import Conversation, RolloutEngine, Sample, Sampling
from rlcore.types import Problem, Turn

TEXT = ["What is 2 + 3? The answer is 5. Verdict: right wrong STOP. Check it. Review it. user assistant " * 3]


class ScriptedEngine(RolloutEngine):
    """`replies(key, turn, text so far)` is the next reply of conversation `key`; with `cut` none is ended."""

    def __init__(self, tokenizer, replies: Callable[[int, int, str], str], *, cut: bool = False):
        self.tokenizer, self.replies, self.cut = tokenizer, replies, cut
        self.turns: dict[int, int] = {}
        self.asked: dict[int, list[tuple[int, ...]]] = {}
        self.open: set[int] = set()

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, key: int, last: bool) -> Sample:
        turn = self.turns[key] = self.turns.get(key, -1) + 1
        self.asked.setdefault(key, []).append(tuple(ids))
        self.open.add(key)
        if last:
            self.open.discard(key)
        text = self.replies(key, turn, self.tokenizer.decode(list(ids)))
        reply = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        reply += [] if self.cut else [self.tokenizer.eos_token_id]
        return Sample(tuple(reply), (-0.5,) * len(reply), "length" if self.cut else "stop", (3,) * len(reply))

    def release(self, key: int) -> None:
        self.open.discard(key)


class ScriptedScorer:
    """`judge(problem, text)` is the verdict on an attempt, in this process."""

    def __init__(self, judge: Callable[[Problem, str], Verdict] = lambda problem, text: Verdict(0.0, "wrong")):
        self.judge = judge

    def start(self, problem: Problem, attempt: Turn) -> Future[Verdict]:
        verdict: Future[Verdict] = Future()
        verdict.set_result(self.judge(problem, attempt.text))
        return verdict


def conversation(**section) -> Conversation:
    """Over a small BPE tokenizer with its own template."""
    tokenizer = scratch_tokenizer(TEXT, 400)
    settings = {"instruction": "Check it.", "review": "Review it.", "max_prompt_tokens": 100} | section
    return Conversation(tokenizer, schema.ConversationConfig(**settings), [tokenizer.eos_token_id])


def problem(**columns) -> Problem:
    return Problem("1", ({"role": "user", "content": "What is 2 + 3?"},), columns)
