r"""Is the mathematical answer right? Exact where it can be decided exactly, by computer algebra where it cannot.

An attempt is read by a policy: its last complete `\boxed{...}`, else "The final answer is $...$", else `#### ...`;
thinking blocks do not count. Numbers, lists, units, bases and words are compared exactly, without computer algebra;
what is left goes to math-verify in a worker process that is killed at the deadline.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from rewards import symbolic
from rewards.answers import FINDERS, find_answer, find_gold
from rewards.notation import Answer, read
from rewards.pool import DEADLINE, shared_pool
from rewards.reward import Completion, text_of
from rewards.verdict import RewardError, Verdict

POLICY = tuple(FINDERS)
_MAX_ANSWER = 2000  # characters; nothing longer is an answer, unless the gold one is long too
_CACHE_SIZE = 1 << 16
_PRINTED_BITS = (
    1024  # of a number's parts: 2004! has digits by the thousand, and Python refuses to write more than 4300
)

Pair = tuple[str, str]  # gold formula, predicted formula
_SYMBOLIC = {"name": "rewards.symbolic:symbolic_reward"}
_cache: OrderedDict[Pair, Verdict] = OrderedDict()


def math_reward(
    completions: Sequence[Completion],
    answer: Sequence[Any] | None = None,
    solution: Sequence[Any] | None = None,
    *,
    policy: Sequence[str] = POLICY,
    deadline: float = DEADLINE,
    **columns: Any,
) -> list[float | None]:
    r"""1 for a right answer, 0 for a wrong or missing one, None where the gold cannot be read or time ran out.

    The gold is the column `answer`, else `solution`: a plain answer, a GSM8K solution ending in `#### n`, or a MATH
    solution with its `\boxed{...}`. `policy` names the finders of the attempt's answer, in order, out of
    boxed, final_answer, hashes. `deadline` is in seconds a pair, on any thread.
    """
    return [v.score for v in _verdicts(completions, answer, solution, policy, lambda pairs: _pooled(pairs, deadline))]


def math_verdicts(
    completions: Sequence[Completion],
    answer: Sequence[Any] | None = None,
    solution: Sequence[Any] | None = None,
    *,
    policy: Sequence[str] = POLICY,
    deadline: float = DEADLINE,
    **columns: Any,
) -> list[Verdict]:
    """The verdicts behind `math_reward`, with computer algebra in this process: for a pool, whose deadline holds."""
    return _verdicts(completions, answer, solution, policy, lambda pairs: [symbolic.equal(*pair) for pair in pairs])


math_reward.verdicts = math_verdicts  # type: ignore[attr-defined]
math_reward.prepare = symbolic.prepare  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Open:
    """A comparison that only computer algebra can decide: every pair must be equal; `answer` is the attempt's."""

    pairs: tuple[Pair, ...]
    answer: str = ""


def _verdicts(
    completions: Sequence[Completion],
    answer: Sequence[Any] | None,
    solution: Sequence[Any] | None,
    policy: Sequence[str],
    algebra: Callable[[list[Pair]], list[Verdict]],
) -> list[Verdict]:
    golds = answer if answer is not None else solution
    if golds is None:
        raise RewardError("reward 'math' needs a column 'answer' or 'solution'")
    rows = [_judge(text_of(text), gold, policy) for text, gold in zip(completions, golds, strict=True)]
    pairs = list(dict.fromkeys(pair for row in rows if isinstance(row, Open) for pair in row.pairs))
    decided = dict(zip(pairs, algebra(pairs), strict=True)) if pairs else {}
    return [
        replace(_all_equal([decided[pair] for pair in row.pairs]), answer=row.answer) if isinstance(row, Open) else row
        for row in rows
    ]


def _all_equal(verdicts: Sequence[Verdict]) -> Verdict:
    return next((verdict for verdict in verdicts if verdict.status != "correct"), verdicts[0])


def _pooled(pairs: list[Pair], deadline: float) -> list[Verdict]:
    new = [pair for pair in pairs if pair not in _cache]
    if new:
        golds, formulas = zip(*new, strict=True)
        verdicts = shared_pool(_SYMBOLIC, deadline).score(formulas, {"gold": golds})
        _cache.update(zip(new, verdicts, strict=True))
    found = [_cache[pair] for pair in pairs]
    while len(_cache) > _CACHE_SIZE:
        _cache.popitem(last=False)
    return found


def _judge(text: str, gold: Any, policy: Sequence[str]) -> Verdict | Open:
    reference = find_gold(gold)
    if not reference:
        return Verdict(None, "unscorable", "the gold answer is empty")
    found = find_answer(text, policy)
    if found is None:
        return Verdict(0.0, "no_answer")
    if len(found) > max(_MAX_ANSWER, 4 * len(reference)):
        return Verdict(0.0, "wrong", f"an answer of {len(found)} characters")
    attempt = read(found)
    outcome = compare(read(reference), attempt)
    answer = _in_one_notation(attempt)
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


def compare(gold: Answer, found: Answer) -> bool | Open:
    """Whether two answers are the same, or what computer algebra has to say about it."""
    if gold.text == found.text or gold.body == found.body != "" == gold.unit == found.unit == found.variable:
        return True
    if gold.variable and found.variable and gold.variable != found.variable:
        return False
    if found.sides and not gold.sides:
        return _every(compare(gold, read(side)) for side in found.sides)
    if gold.base or found.base:
        return gold.base == found.base
    if gold.words or found.words:
        return gold.words == found.words
    if gold.ratio or found.ratio:
        return len(gold.ratio) == len(found.ratio) and _pairwise(gold.ratio, found.ratio)
    if gold.items or found.items:
        return _compare_lists(gold, found)
    return _compare_measures(gold, found)


def _compare_measures(gold: Answer, found: Answer) -> bool | Open:
    if gold.unit != found.unit and ((gold.unit and found.unit) or not (gold.sure_unit and found.sure_unit)):
        return False
    if (gold.percent and found.unit) or (gold.unit and found.percent):
        return False
    if gold.value is not None and found.value is not None:
        return _same_value(gold, found, gold.value, found.value)
    if gold.percent != found.percent:
        return _every([Open(((gold.body, found.body),))])
    return Open(((_formula(gold), _formula(found)),))


def _same_value(gold: Answer, found: Answer, left: Fraction, right: Fraction) -> bool:
    """Equal numbers; a percent sign on one side only may be read as a hundredth, or as the unit asked for."""
    if gold.percent != found.percent:
        hundredth = (left / 100, right) if gold.percent else (left, right / 100)
        return left == right or hundredth[0] == hundredth[1]
    return left == right


def _compare_lists(gold: Answer, found: Answer) -> bool | Open:
    unordered = {"", "{}"}
    if {gold.brackets, found.brackets} <= unordered:
        return _compare_sets(gold.items or (gold.body,), found.items or (found.body,), gold, found)
    if not gold.items or not found.items:
        return Open(((_formula(gold), _formula(found)),)) if _may_be_list(gold, found) else False
    if gold.brackets != found.brackets or len(gold.items) != len(found.items):
        return False
    return _pairwise(gold.items, found.items)


def _may_be_list(gold: Answer, found: Answer) -> bool:
    r"""An interval may be written as an inequality, a vector as a matrix; a number is neither."""
    other = found if gold.items else gold
    return other.value is None and ("\\" in other.body or "<" in other.body or ">" in other.body)


def _compare_sets(gold: tuple[str, ...], found: tuple[str, ...], left: Answer, right: Answer) -> bool | Open:
    golds, founds = [read(item) for item in gold], [read(item) for item in found]
    if all(answer.value is not None and not answer.unit and not answer.percent for answer in golds + founds):
        return {answer.value for answer in golds} == {answer.value for answer in founds}
    if len(golds) != len(founds):
        return Open(((_formula(left), _formula(right)),)) if "\\pm" in left.text + right.text else False
    in_order = _pairwise(gold, found)
    if in_order is True:
        return True
    if all(answer.words or answer.base for answer in golds):
        return sorted(answer.body for answer in golds) == sorted(answer.body for answer in founds)
    return Open(((_formula(left), _formula(right)),))


def _pairwise(gold: Sequence[str], found: Sequence[str]) -> bool | Open:
    return _every(compare(read(left), read(right)) for left, right in zip(gold, found, strict=True))


def _every(outcomes: Any) -> bool | Open:
    pairs: list[Pair] = []
    for outcome in outcomes:
        if outcome is False:
            return False
        if isinstance(outcome, Open):
            pairs.extend(outcome.pairs)
    return Open(tuple(pairs)) if pairs else True


def _formula(answer: Answer) -> str:
    """What computer algebra gets: no units, braces for a set."""
    return f"{answer.variable}={answer.body}" if answer.variable else answer.body
