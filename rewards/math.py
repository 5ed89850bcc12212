r"""Is the mathematical answer right? Exact where it can be decided exactly, by computer algebra where it cannot.

An attempt is read by a policy: its last complete `\boxed{...}`, else "The final answer is $...$", else `#### ...`;
thinking blocks do not count. Numbers, lists, units, bases and words are compared exactly, formulas by their values;
what that leaves open goes to math-verify in a worker process that is killed at the deadline.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from rewards import symbolic
from rewards.answers import find_answer, find_gold
from rewards.compare import Open, Pair, compare
from rewards.notation import Answer, read
from rewards.pool import DEADLINE, shared_pool
from rewards.restated import restates
from rewards.reward import Completion, text_of
from rewards.verdict import RewardError, Verdict

POLICY = ("boxed", "final_answer", "hashes")
_MAX_ANSWER = 2000  # characters; nothing longer is an answer, unless the gold one is long too
_CACHE_SIZE = 1 << 16
_PRINTED_BITS = 1024  # of a number's parts: 2004! has digits by the thousand, and Python writes no more than 4300

_SYMBOLIC = {"name": "rewards.symbolic:symbolic_reward"}
_cache_lock = Lock()
_PASSING = ("timeout", "error")  # may come out otherwise another time, on a machine less busy
_cache: OrderedDict[Pair, Verdict] = OrderedDict()


def math_reward(
    completions: Sequence[Completion],
    answer: Sequence[Any] | None = None,
    solution: Sequence[Any] | None = None,
    prompts: Sequence[Completion] | None = None,
    *,
    policy: Sequence[str] = POLICY,
    deadline: float = DEADLINE,
    late: float | None = None,
    **columns: Any,
) -> list[float | None]:
    r"""1 for a right answer, 0 for a wrong or missing one, None where the gold cannot be read or time ran out.

    The gold is the column `answer`, else `solution`: a plain answer, a GSM8K solution ending in `#### n`, or a MATH
    solution with its `\boxed{...}`. `policy` names the finders of the attempt's answer, in order, out of
    boxed, final_answer, hashes, boxes, plain. An answer that only restates a formula of its prompt, where there are
    `prompts`, is wrong. `deadline` is in seconds a pair, on any thread; `late` is the score where it passes, 0 for
    those who would rather have that.
    """
    golds = answer if answer is not None else solution
    verdicts = _judge(completions, golds, prompts, policy, lambda pairs: _pooled(pairs, deadline))
    return [late if verdict.status == "timeout" else verdict.score for verdict in verdicts]


def math_verdicts(
    completions: Sequence[Completion],
    answer: Sequence[Any] | None = None,
    solution: Sequence[Any] | None = None,
    prompts: Sequence[Completion] | None = None,
    policy: Sequence[str] = POLICY,
    **columns: Any,
) -> list[Verdict]:
    """The verdicts behind `math_reward`, with computer algebra in this process: for a pool, whose deadline holds."""
    golds = answer if answer is not None else solution
    return _judge(completions, golds, prompts, policy, lambda pairs: [symbolic.equal(*pair) for pair in pairs])


math_reward.verdicts = math_verdicts  # type: ignore[attr-defined]
math_reward.prepare = symbolic.prepare  # type: ignore[attr-defined]


def _judge(
    completions: Sequence[Completion],
    golds: Sequence[Any] | None,
    prompts: Sequence[Completion] | None,
    policy: Sequence[str],
    algebra: Callable[[list[Pair]], list[Verdict]],
) -> list[Verdict]:
    if golds is None:
        raise RewardError("reward 'math' needs a column 'answer' or 'solution'")
    asked = map(text_of, prompts) if prompts is not None else [""] * len(completions)
    rows = [
        _compared(text_of(text), gold, prompt, policy)
        for text, gold, prompt in zip(completions, golds, asked, strict=True)
    ]
    pairs = list(dict.fromkeys(pair for row in rows if isinstance(row, Open) for pair in row.pairs))
    decided = dict(zip(pairs, algebra(pairs), strict=True)) if pairs else {}
    return [
        replace(_all_equal([decided[pair] for pair in row.pairs]), answer=row.answer) if isinstance(row, Open) else row
        for row in rows
    ]


def _all_equal(verdicts: Sequence[Verdict]) -> Verdict:
    """What is wrong somewhere is wrong, whatever came of the rest."""
    return min(verdicts, key=lambda verdict: (verdict.status != "wrong", verdict.status == "correct"))


def _pooled(pairs: list[Pair], deadline: float) -> list[Verdict]:
    with _cache_lock:
        found = {pair: _cache[pair] for pair in pairs if pair in _cache}
    new = [pair for pair in pairs if pair not in found]
    if new:
        golds, formulas = zip(*new, strict=True)
        found.update(zip(new, shared_pool(_SYMBOLIC, deadline).score(formulas, {"gold": golds}), strict=True))
    with _cache_lock:
        for pair in pairs:
            if found[pair].status not in _PASSING:
                _cache[pair] = found[pair]
                _cache.move_to_end(pair)
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return [found[pair] for pair in pairs]


def _compared(text: str, gold: Any, prompt: str, policy: Sequence[str]) -> Verdict | Open:
    reference = find_gold(gold)
    if not reference:
        return Verdict(None, "unscorable", "the gold answer is empty")
    found = find_answer(text, policy)
    if found is None:
        return Verdict(0.0, "no_answer")
    if len(found) > max(_MAX_ANSWER, 4 * len(reference)):
        return Verdict(0.0, "wrong", f"an answer of {len(found)} characters")
    right, attempt = read(reference), read(found)
    outcome = compare(right, attempt)
    answer = _in_one_notation(attempt)
    if outcome is not False and prompt and restates(right, attempt, prompt):
        return Verdict(0.0, "wrong", f"answer {found[:60]} restates the question", answer=answer)
    if isinstance(outcome, Open):
        return replace(outcome, answer=answer)
    score, status = (1.0, "correct") if outcome else (0.0, "wrong")
    return Verdict(score, status, f"answer {found[:60]}", answer=answer)


def _in_one_notation(answer: Answer) -> str:
    """A text that two answers share when they are plainly the same: equal numbers however written, else equal texts."""
    value = answer.value
    if value is None or max(value.numerator.bit_length(), value.denominator.bit_length()) > _PRINTED_BITS:
        return "".join(answer.text.split()).casefold()
    return f"{value / 100 if answer.percent else value}{answer.unit}"
