"""`math` on the pairs that Math-Verify tests itself with: `python -m tests.bench.math_verify FOLDER`.

FOLDER is `tests` of Math-Verify's source archive (`pip download --no-deps --no-binary :all: math-verify==0.9.0`).
Prints the page [MATH_VERIFY.md](MATH_VERIFY.md): how many pairs are judged as Math-Verify expects, and each that is
not, with the reason. A difference that no reason below is about counts as a fault of ours, and the exit status says so.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rewards.answers import find_answer
from rewards.math import POLICY, math_reward

_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
POLICIES = ((*POLICY, "plain"), ("boxes",))
REASONS = [  # verdict, reason, what is to be found in the pair, the gold answer before the bar
    ("debatable", "doubled backslashes are those of JSON, or end a line", r"\\\\le\b"),
    ("debatable", "a box that never ends holds no answer", r"boxed\{W\(n\)"),
    ("debatable", "a comma in a number separates thousands or items, never decimals", r"\d,\d\d\b(?!\d)|0,111"),
    ("debatable", "nothing marks the answer in the text", r"\d,\d{3}\.99|user$|by 100%"),
    ("debatable", "a box before it holds another value", r"10455"),
    ("ours right", "space around a formula means nothing", r"Answer (?:\$|\\\() \n"),
    ("ours right", "the sides of the equation differ", r"5\+5\+1|\\\$ = "),
    ("ours right", "two to four digits are another value", r"0\.33|2\.6667"),
    ("ours right", "a pair has an order, a set has none", r"\(1,3\)"),
    ("ours right", "they differ", r"1 - |f\(x\)"),
    ("ours right", "the same two values, each once", r"no no"),
]


def pairs(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """Gold answer, attempt and what is expected, of every table of such in the test files."""
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "parametrize":
                names = re.findall(r"\w+", str(ast.literal_eval(node.args[0])))
                if names[:2] == ["gold", "pred"] and isinstance(node.args[1], ast.List):
                    for row in node.args[1].elts:
                        yield from _pair(names, row)


def _pair(names: list[str], row: ast.expr) -> Iterator[tuple[str, str, bool]]:
    try:
        values = dict(zip(names, ast.literal_eval(row), strict=True))
    except ValueError:  # a value that is computed
        return
    yield values["gold"], values["pred"], bool(values.get("expected", values.get("result")))


def readings(text: str, policies: tuple[tuple[str, ...], ...]) -> list[str]:
    """What may be taken for the answer in a text: what the policies find, else its formulas, else all of it."""
    found = [answer for policy in policies if (answer := find_answer(text, policy))]
    formulas = [next(filter(None, groups)) for groups in _FORMULA.findall(text)]
    return found or ([", ".join(formulas), formulas[-1]] if formulas else [text])


def judge(gold: str, attempt: str) -> bool:
    tries = [(g, a) for g in readings(gold, POLICIES[1:]) for a in readings(attempt, POLICIES)]
    attempts = [f"\\boxed{{{a}}}" for _, a in tries]
    return 1.0 in math_reward(attempts, answer=[f"\\boxed{{{g}}}" for g, _ in tries], deadline=30.0)


def main(folder: Path) -> int:
    counts: Counter[str] = Counter()
    table = []
    for gold, attempt, expected in pairs(folder):
        if judge(gold, attempt) == expected:
            counts["agree"] += 1
            continue
        whole = f"{gold} | {attempt}"
        verdict, reason, _ = next((row for row in REASONS if re.search(row[2], whole)), ("ours wrong", "", ""))
        counts[verdict] += 1
        table.append((verdict, _short(gold), _short(attempt), expected, reason))
    print(
        "# Math-Verify's pairs\n\nMade by `python -m tests.bench.math_verify FOLDER`, which says where they are from.\n"
    )
    print("| " + " | ".join(["pairs", "agree", "ours right", "debatable", "ours wrong"]) + " |\n|" + " ---: |" * 5)
    known = [counts[name] for name in ("agree", "ours right", "debatable", "ours wrong")]
    print("| " + " | ".join(map(str, [sum(known), *known])) + " |\n")
    print("| verdict | gold | answer | Math-Verify | reason |\n| --- | --- | --- | --- | --- |")
    for verdict, gold, attempt, expected, reason in sorted(table):
        print(f"| {verdict} | `{gold}` | `{attempt}` | {'equal' if expected else 'different'} | {reason} |")
    return int(counts["ours wrong"] > 0)


def _short(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= 50 else f"...{text[-47:]}"


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
