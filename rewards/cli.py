"""Score a file of completions from the command line."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewards.pool import DEADLINE, RewardPool
from rewards.registry import REGISTERED
from rewards.verdict import STATUSES, RewardError, Verdict

_COMPLETIONS = ("completion", "response", "output", "prediction")
GOLD = ("solution", "code", "canonical_solution", "answer")
"""Columns that hold a reference, the likeliest first."""
_SLOWEST = 5
_CHUNK = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `main`."""
    parser.add_argument("data", type=Path, help="JSONL file (.gz too): one row a line, its columns go to the reward")
    parser.add_argument(
        "--reward", required=True, help=f"{', '.join(REGISTERED)}, package.module:function or path/to/file.py:function"
    )
    parser.add_argument("--kwargs", default="{}", help="the reward's arguments, as JSON")
    parser.add_argument("--completion", help=f"column to score (default: the first of {', '.join(_COMPLETIONS)})")
    parser.add_argument("--gold", action="store_true", help=f"score the reference: the first of {', '.join(GOLD)}")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds a completion (default 2)")
    parser.add_argument("--limit", type=int, help="score the first rows only")
    parser.add_argument("--output", type=Path, help="write each row's verdict to this JSONL file")


def main(args: argparse.Namespace) -> int:
    """Score, print a summary, write verdicts. Returns the exit code: 2 for a mistake of the user, told in one line."""
    try:
        _run(args)
    except (RewardError, OSError) as error:
        print(f"rlcore: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    rows = _read(args.data)[: args.limit]
    if not rows:
        raise RewardError(f"{args.data} has no rows")
    column = args.completion or _first_column(rows[0], GOLD if args.gold else _COMPLETIONS, args.data)
    for number, row in enumerate(rows, 1):
        if column not in row:
            raise RewardError(f"{args.data}, row {number}: no column '{column}'")
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    completions: list[Any] = columns[column] if args.gold else columns.pop(column)
    try:
        kwargs = json.loads(args.kwargs)
    except ValueError as error:
        raise RewardError(f"--kwargs is not JSON: {error}") from error
    if args.output:
        args.output.touch()  # better told before the scoring than after it
    with RewardPool([{"name": args.reward, "kwargs": kwargs}], workers=args.workers, deadline=args.deadline) as pool:
        began = time.perf_counter()
        verdicts: list[Verdict] = []
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            verdicts += pool.score(completions[part], {name: values[part] for name, values in columns.items()})
        _summarise(verdicts, time.perf_counter() - began)
        for name, counters in pool.counters.items():
            print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in counters.items()))
    if args.output:
        with args.output.open("w") as file:
            file.writelines(json.dumps({"row": n, **asdict(v)}) + "\n" for n, v in enumerate(verdicts))


def _read(path: Path) -> list[dict[str, Any]]:
    rows = []
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RewardError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise RewardError(f"{path}, line {number}: a {type(row).__name__}, not an object with columns")
            rows.append(row)
    return rows


def _first_column(row: dict[str, Any], candidates: Sequence[str], path: Path) -> str:
    for name in candidates:
        if name in row:
            return name
    raise RewardError(f"{path} has none of the columns {', '.join(candidates)}; it has: {', '.join(row)}")


def _summarise(verdicts: Sequence[Verdict], seconds: float) -> None:
    counts = Counter(verdict.status for verdict in verdicts)
    for status in STATUSES:
        if counts[status]:
            print(f"{status:<11} {counts[status]:>7}  {counts[status] / len(verdicts):7.2%}")
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    mean = f"{sum(scores) / len(scores):.4f}" if scores else "none"
    print(f"mean score {mean} over {len(scores)} scored of {len(verdicts)}")
    print(f"{len(verdicts) / seconds:.0f} completions/s ({seconds:.2f} s)")
    print("slowest rows:")
    for row in sorted(range(len(verdicts)), key=lambda row: -verdicts[row].seconds)[:_SLOWEST]:
        verdict = verdicts[row]
        print(f"  {row:>6}  {verdict.seconds * 1e3:8.1f} ms  {verdict.status}  {verdict.detail[:80]}")
