r"""Is the mathematical answer right? Exact where it can be decided exactly, by computer algebra where it cannot.

An attempt is read by a policy: its last complete `\boxed{...}`, else "The final answer is $...$", else `#### ...`;
thinking blocks do not count. Numbers, lists, units, bases and words are compared exactly, without computer algebra;
what is left goes to math-verify in a worker process that is killed at the deadline.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from threading import Lock
from typing import Any

from rewards import symbolic
from rewards.answers import find_answer, find_gold
from rewards.notation import Answer, read, split_top
from rewards.pool import DEADLINE, shared_pool
from rewards.reward import Completion, text_of
from rewards.typeset import tight
from rewards.verdict import RewardError, Verdict

POLICY = ("boxed", "final_answer", "hashes")
_MAX_ANSWER = 2000  # characters; nothing longer is an answer, unless the gold one is long too
_CACHE_SIZE = 1 << 16
_PRINTED_BITS = (
    1024  # of a number's parts: 2004! has digits by the thousand, and Python refuses to write more than 4300
)

Pair = tuple[str, str]  # gold formula, predicted formula
_SYMBOLIC = {"name": "rewards.symbolic:symbolic_reward"}
_cache_lock = Lock()
_PASSING = ("timeout", "error")  # may come out otherwise another time, on a machine less busy
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]")
_NAMED = re.compile(r"\\text|[a-zA-Z]+\(")
_DIFFERENTIAL = re.compile(r"(\\[a-zA-Z]+)|d(?=[a-zA-Z\\])")
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
    if gold.label or found.label:
        return _compare_labelled(gold, found)
    if tight(gold.text) == tight(found.text):
        return True
    if gold.body == found.body != "" == gold.unit == found.unit == found.variable:
        return True
    if _is_curve(gold) and _is_curve(found):
        return Open(((tight(gold.text), tight(found.text)),))
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


def _compare_labelled(gold: Answer, found: Answer) -> bool | Open:
    """A multiple choice's letter before the answer: either may be left out on one side."""
    plain = replace(gold, label="", text=gold.body), replace(found, label="", text=found.body)
    if gold.label and found.label:
        return gold.label == found.label and compare(*plain)
    labelled, other = (gold, found) if gold.label else (found, gold)
    return labelled.label == other.words or compare(*plain)


def _is_curve(answer: Answer) -> bool:
    r"""An equation between two letters: `y=4x-1`, `4x-y=1`; not `x=5` or `f(x)=2x`, which say what a value is."""
    text = answer.text
    letters = set(_LETTER.findall(text)) - {"e", "i"}
    return len(split_top(text, "=")) == 2 and len(letters) > 1 and not _NAMED.match(text) and not set(",:") & set(text)


def _compare_measures(gold: Answer, found: Answer) -> bool | Open:
    if gold.unit != found.unit and ((gold.unit and found.unit) or not (gold.sure_unit and found.sure_unit)):
        return False
    if (gold.percent and found.unit) or (gold.unit and found.percent):
        return False
    if gold.value is not None and found.value is not None:
        return _same_value(gold, found, gold.value, found.value)
    if "..." in gold.body + found.body:  # a decimal that goes on is no number that is written out
        return False
    if gold.percent != found.percent:
        return Open(((tight(gold.body), tight(found.body)),))
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
    if {gold.brackets, found.brackets} == {"", "()"} and gold.items and found.items:
        return _compare_named(gold, found)
    if not gold.items or not found.items:
        return Open(((_formula(gold), _formula(found)),)) if _may_be_list(gold, found) else False
    if gold.brackets != found.brackets or len(gold.items) != len(found.items):
        return False
    return _pairwise(gold.items, found.items)


def _compare_named(gold: Answer, found: Answer) -> bool | Open:
    """A point against its coordinates by name: `(2,3)` and `x=2, y=3`, each name once."""
    plain, other = (gold, found) if gold.brackets == "" else (found, gold)
    named = sorted(map(read, plain.items), key=_name)
    names = {answer.variable for answer in named}
    if "" in names or len(names) != len(named) or len(named) != len(other.items):
        return False
    points = [read(item) for item in other.items]
    return _every(map(compare, named, points) if plain is gold else map(compare, points, named))


def _may_be_list(gold: Answer, found: Answer) -> bool:
    r"""An interval may be written as an inequality, a vector as a matrix; a number is neither."""
    other = found if gold.items else gold
    return other.value is None and ("\\" in other.body or "<" in other.body or ">" in other.body)


def _compare_sets(gold: tuple[str, ...], found: tuple[str, ...], left: Answer, right: Answer) -> bool | Open:
    golds, founds = _items(gold), _items(found)
    named = all(answer.variable for answer in golds + founds)
    if all(answer.value is not None and not answer.unit and not answer.percent for answer in golds + founds):
        return _values(golds, named) == _values(founds, named)
    if len(golds) != len(founds):
        return Open(((_formula(left), _formula(right)),)) if "\\pm" in left.text + right.text else False
    if named:
        golds, founds = sorted(golds, key=_name), sorted(founds, key=_name)
    in_order = _every(map(compare, golds, founds))
    if in_order is True or named:
        return in_order
    if all(answer.words or answer.base for answer in golds):
        return sorted(map(_word, golds)) == sorted(map(_word, founds))
    return Open(((_formula(left), _formula(right)),))


def _items(items: Sequence[str]) -> list[Answer]:
    """The items of a set, each once; the first one's variable holds for those after it that name none."""
    answers: dict[str, Answer] = {}
    variable = ""
    for item in items:
        answer = read(item)
        variable = answer.variable or variable
        answers.setdefault(tight(answer.text), replace(answer, variable=variable))
    return list(answers.values())


def _values(answers: Sequence[Answer], named: bool) -> set[tuple[str, Fraction | None]]:
    return {(answer.variable if named else "", answer.value) for answer in answers}


def _name(answer: Answer) -> str:
    return answer.variable


def _word(answer: Answer) -> str:
    return answer.words or answer.body


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
    """What computer algebra gets: no units, no name that the answer is assigned to."""
    if answer.items and not answer.brackets:
        return ",".join(_factors(read(item).body) for item in answer.items)
    return _factors(answer.body)


def _factors(body: str) -> str:
    """The letter d is a factor like any other; computer algebra takes `7dc` for a differential."""
    if "\\int" in body or "\\frac{d" in body:
        return tight(body)
    return _DIFFERENTIAL.sub(lambda match: match[1] or "{d}", tight(body))
