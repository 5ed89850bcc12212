"""MBPP: short Python programs with three tests each (Austin et al. 2021, arXiv 2108.07732).

The published file contains all 974 tasks; the paper splits them by number. As in the paper, the question shows the
tests, which alone give the function's name. The first one is public, for execution feedback.
"""

from rlcore.data.table import Row
from rlcore.entries import Source

SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}


def _in_split(row: Row, split: str) -> bool:
    names = split.split("+")
    return "all" in names or any(row["task_id"] in SPLITS.get(name, ()) for name in names)


def _ask(row: Row) -> str:
    return f"{row['text'].strip()}\nYour code should pass these tests:\n" + "\n".join(row["test_list"])


def _with_public(row: Row) -> Row:
    return {"public_tests": (row.get("test_list") or [])[:1], **row}


MBPP = Source(
    text="text",
    gold=("test_list", "task_id"),
    id="task_id",
    domain="code",
    hub="google-research-datasets/mbpp",
    subset="full",
    complete=_with_public,
    in_split=_in_split,
    ask=_ask,
)
