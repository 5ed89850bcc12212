r"""Whether two answers are the same: names, units, lists and words by what they mean, formulas by their values.

What values cannot tell is left open, as the pairs of formulas that computer algebra has to find equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rewards import formula
from rewards.notation import MANY_DIGITS, Answer, read, split_top
from rewards.typeset import tight
from rewards.units import agree

Pair = tuple[str, str]  # gold formula, predicted formula
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
# what computer algebra would leave out: words that are no unit, dots after a decimal that goes on, minutes of arc
_SAYS_MORE = re.compile(r"\\text|\.\.\.|['\"?]")
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]")
_NAMED = re.compile(r"\\text|[a-zA-Z]+\(")
_QUANTITY = re.compile(  # a function of something, in one letter or by its name; bars around a letter; an area
    r"(?:[a-zA-Z](?:\^\{?-1\}?|')?|\\(?:sin|cos|tan|cot|sec|csc|log|ln|det|gcd|arg|dim)(?:\s*[_^]\s*\{?\d+\}?)?)\s*"
    r"(?:\([^=]*\)|\\?[a-zA-Z]+(?:\s+[A-Z]+)?|\\text\{[^{}]*\})|\|[a-zA-Z]\||\[[A-Z]{3,}\]"
    r"|\\lfloor\s+[a-zA-Z]\s*\\rfloor|\\lceil\s+[a-zA-Z]\s*\\rceil"
)
_OF_MATRICES = re.compile(
    r"(?:(?:[A-Za-z]|\\text\{[A-Za-z]\}|[()])\s*(?:\^\s*(?:\w|\{-?\w+\}|\\top)\s*)?)+"
)  # powers, products
_DIFFERENTIAL = re.compile(r"(\\[a-zA-Z]+)|d(?=[a-zA-Z\\])")
# an interval may be written as a condition, a vector as a sum; what has none of these is a number
_OF_SETS = re.compile(r"[<>=|]|\\\{|\\(?:le|ge|ne|neq|in|cap|setminus|mathbb|begin|infty)(?![a-zA-Z])")
_INSIDE = re.compile(r"(?:\\\{|[(\[])(.*)(?:\\\}|[)\]])", re.DOTALL)
_SPACED = re.compile(r"\s*(?:;|,(?=\s))\s*")
_UNORDERED = {"", "{}"}
_MAX_COMPARISONS = 10_000  # of items with items


@dataclass(frozen=True)
class Open:
    """A comparison that only computer algebra can decide: every pair must be equal; `answer` is the attempt's."""

    pairs: tuple[Pair, ...]
    answer: str = ""


def compare(gold: Answer, found: Answer) -> bool | Open:
    """Whether two answers are the same, or what computer algebra has to say about it."""
    if gold.plain and found.plain:
        return gold.value == found.value
    if gold.label or found.label:
        return _compare_labelled(gold, found)
    if _letters(gold) == _letters(found):
        return True
    if gold.body == found.body != "" == gold.unit == found.unit == found.variable and gold.percent == found.percent:
        return True
    if _is_curve(gold) and _is_curve(found):
        if formula.proportional(split_top(gold.text, "="), split_top(found.text, "=")):
            return True
        if gold.variable != found.variable or not gold.variable:
            return _ask(tight(gold.text), tight(found.text))
    if gold.variable and found.variable and gold.variable != found.variable:
        return False
    if found.sides and not gold.sides:
        *asked, last = found.sides
        return _every(compare(gold, read(side)) for side in [*(s for s in asked if not _is_asked(s, gold)), last])
    if gold.base or found.base:
        return gold.base == found.base
    if gold.words or found.words:
        return gold.words == found.words
    if gold.ratio or found.ratio:
        return len(gold.ratio) == len(found.ratio) and _pairwise(gold.ratio, found.ratio)
    if gold.items or found.items:
        return _compare_lists(gold, found)
    return _compare_measures(gold, found)


def _letters(answer: Answer) -> str:
    return tight(_TEXT.sub(r"\1", answer.text))


def _compare_labelled(gold: Answer, found: Answer) -> bool | Open:
    """A multiple choice's letter before the answer: either may be left out on one side."""
    plain = replace(gold, label="", text=gold.body), replace(found, label="", text=found.body)
    if gold.label and found.label:
        return gold.label == found.label and compare(*plain)
    labelled, other = (gold, found) if gold.label else (found, gold)
    if re.fullmatch("[A-Z]", other.words):
        return labelled.label == other.words
    return compare(*plain)


def _is_curve(answer: Answer) -> bool:
    r"""An equation between two letters: `y=4x-1`, `4x-y=1`; not `x=5` or `f(x)=2x`, which say what a value is."""
    text = answer.text
    letters = set(_LETTER.findall(text)) - {"e", "i"}
    return len(split_top(text, "=")) == 2 and len(letters) > 1 and not _NAMED.match(text) and not set(",:") & set(text)


def _is_asked(side: str, gold: Answer) -> bool:
    r"""Whether a side only repeats what is asked for: `a+b`, `\cos\theta`, `f^{-1}(3)`, `|z|`, `[ABC]`.

    An equation in one letter, such as `x+1=9`, is what has to be solved; a matrix may be that of `A^{-1}`.
    """
    if gold.brackets.startswith("matrix") and _OF_MATRICES.fullmatch(side):
        return True
    letters = set(_LETTER.findall(side)) - set(_LETTER.findall(gold.body)) - {"e", "i"}
    return bool(_QUANTITY.fullmatch(side)) or ("\\text" not in side and len(letters) > 1)


def _compare_measures(gold: Answer, found: Answer) -> bool | Open:
    if gold.unit != found.unit and not (gold.sure_unit and found.sure_unit and agree(gold.unit, found.unit)):
        return False
    if (gold.percent and found.unit) or (gold.unit and found.percent):
        return False
    if gold.value is not None and found.value is not None:
        return _same_value(gold, found, gold.value, found.value)
    if ("\\infty" in gold.body) != ("\\infty" in found.body):
        return False
    return _same_formula(gold, found)


def _same_value(gold: Answer, found: Answer, left: Fraction, right: Fraction) -> bool:
    """Equal numbers; a percent sign on one side only may be read as a hundredth, or as the unit asked for."""
    if gold.percent == found.percent:
        return left == right or formula.stands_for(gold.body, right) or formula.stands_for(found.body, left)
    hundredth = (left / 100, right) if gold.percent else (left, right / 100)
    return hundredth[0] == hundredth[1] or (left == right and abs(left) >= 1)  # 0.5 is no 0.5 %


def _compare_lists(gold: Answer, found: Answer) -> bool | Open:
    gold, found = _regrouped(gold, len(found.items)), _regrouped(found, len(gold.items))
    kinds = {gold.brackets, found.brackets}
    if found.inequality and gold.brackets == "()" and not gold.variable and "\\infty" not in gold.body:
        return False  # it may be a point
    if kinds <= _UNORDERED:
        return _compare_sets(_items(gold), _items(found), _same_formula(gold, found))
    if not gold.items or not found.items:
        other = found if gold.items else gold
        return bool(_OF_SETS.search(other.body)) and _same_formula(gold, found)
    if kinds == {"", "()"}:
        return _compare_named(gold, found)
    if "∪" in kinds:
        matched = gold.brackets == found.brackets and _compare_sets(_items(gold), _items(found), False)
        return matched is True or _same_formula(gold, found)
    if len(kinds) > 1 or len(gold.items) != len(found.items):
        return False
    return _pairwise(gold.items, found.items)


def _regrouped(answer: Answer, count: int) -> Answer:
    """The list read with thousands, as in `(1,000, 2,000)`, if that makes it one of `count` items."""
    inside = _INSIDE.fullmatch(answer.body) if answer.brackets[:1] in ("(", "[", "{") else None
    items = tuple(_SPACED.split(inside[1])) if inside else ()
    plain = all("," not in item or MANY_DIGITS.fullmatch(item.partition(".")[0]) for item in items)
    return replace(answer, items=items) if plain and 0 < len(items) == count != len(answer.items) else answer


def _compare_named(gold: Answer, found: Answer) -> bool | Open:
    """A point against its coordinates by name: `(2,3)` and `x=2, y=3`, each name once."""
    plain, other = (gold, found) if gold.brackets == "" else (found, gold)
    named = sorted(map(read, plain.items), key=lambda answer: answer.variable)
    names = {answer.variable for answer in named}
    if "" in names or len(names) != len(named) or len(named) != len(other.items):
        return False
    points = [read(item) for item in other.items]
    return _every(map(compare, named, points) if plain is gold else map(compare, points, named))


def _compare_sets(golds: list[Answer], founds: list[Answer], otherwise: bool | Open) -> bool | Open:
    """Whether each item is the same as one of the other side's; `otherwise` where only computer algebra can tell."""
    if len(golds) != len(founds):
        return False
    if all(compare(*items) is True for items in zip(golds, founds, strict=True)):
        return True
    names = [{answer.variable for answer in answers} for answers in (golds, founds)]
    if {""} in names and max(map(len, names)) > 1:  # `a=4, b=7` and `7, 4`
        return _every(map(compare, golds, founds))
    if len(golds) * len(founds) > _MAX_COMPARISONS:
        return otherwise
    rest, decided = list(founds), True
    for gold in golds:
        outcomes = [compare(gold, found) for found in rest]
        if True in outcomes:
            del rest[outcomes.index(True)]
        elif not any(outcomes):
            return False
        else:
            decided = False
    return decided or otherwise


def _items(answer: Answer) -> list[Answer]:
    """The items of a set, each once; the first one's variable holds for those after it that name none."""
    items = answer.items
    if not items:  # three digits and more after each comma: a number, or a list beside a list
        items = tuple(answer.text.split(",")) if MANY_DIGITS.fullmatch(answer.text) else (answer.body,)
    answers: dict[object, Answer] = {}
    variable = ""
    for item in items:
        one = read(item)
        variable = one.variable or variable
        key = tight(one.text) if one.value is None else (one.value, one.unit, one.percent, variable)
        answers.setdefault(key, replace(one, variable=variable))
    return list(answers.values())


def _pairwise(gold: Sequence[str], found: Sequence[str]) -> bool | Open:
    return _every(compare(read(left), read(right)) for left, right in zip(gold, found, strict=True))


def _every(outcomes: Iterable[bool | Open]) -> bool | Open:
    pairs: list[Pair] = []
    for outcome in outcomes:
        if outcome is False:
            return False
        if isinstance(outcome, Open):
            pairs.extend(outcome.pairs)
    return Open(tuple(pairs)) if pairs else True


def _same_formula(gold: Answer, found: Answer) -> bool | Open:
    outcome = formula.same(gold.body, found.body)
    return _ask(_for_algebra(gold), _for_algebra(found)) if outcome is None else outcome


def _ask(gold: str, found: str) -> bool | Open:
    return not _SAYS_MORE.search(gold + found) and Open(((gold, found),))


def _for_algebra(answer: Answer) -> str:
    """What computer algebra gets: no units, no name that the answer is assigned to."""
    if "\\overline" in answer.body and answer.value is not None:  # which it does not read
        return f"\\frac{{{answer.value.numerator}}}{{{answer.value.denominator}}}"
    if answer.items and not answer.brackets:
        return ",".join(_factors(read(item).body) for item in answer.items)
    return _factors(answer.body)


def _factors(body: str) -> str:
    """The letter d is a factor like any other; computer algebra takes `7dc` for a differential."""
    if "\\int" in body or "\\frac{d" in body:
        return tight(body)
    return _DIFFERENTIAL.sub(lambda match: match[1] or "{d}", tight(body))
