"""What a comparison can find: the figures of the room's page, and how often intervals really find it."""

from pathlib import Path

import numpy as np
import pytest

from rlcore.evaluate.bootstrap import seeds_ci
from rlcore.evaluate.power import detectable, problems_needed


def page_rows(repository: Path, heading: str) -> dict[str, list[float]]:
    """The numbers of a table of the page, by the first cell of each line."""
    lines = (repository / "rlcore/evaluate/README.md").read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(heading)) + 2
    rows = {}
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        first, *cells = (cell.strip().replace(",", "") for cell in line.split("|")[1:-1])
        rows[first] = [float(cell) for cell in cells]
    return rows


def test_the_pages_problems_are_what_is_computed(repository: Path):
    rows = page_rows(repository, "| difference |")
    assert list(rows) == ["1", "2", "3", "5"]
    for points, printed in rows.items():
        found = [problems_needed(float(points) / 100, share) for share in (0.06, 0.12, 0.17, 0.3)]
        assert printed == [pytest.approx(value, rel=0.01) for value in found]


def test_the_pages_detectable_differences_are_what_is_computed(repository: Path):
    rows = page_rows(repository, "| problems |")
    assert list(rows) == ["164", "500", "2000", "5000"]
    for problems, printed in rows.items():
        several = [detectable(int(problems), 0.15, seeds=s, spread=0.01) for s in (3, 5, 10)]
        found = [detectable(int(problems), 0.15), *several]
        assert printed == [round(100 * value, 1) for value in found]


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.02), (5, 0.02)])
def test_intervals_find_such_a_difference_four_times_in_five(seeds, spread):
    """M experiments: arms that differ by what is said to be detectable, and in as many problems as is said."""
    rng, problems, experiments, disagreement = np.random.default_rng(0), 600, 400, 0.2
    difference = detectable(problems, disagreement, seeds=seeds, spread=spread)
    shift_SM = rng.normal(0, spread, (2, seeds, 1, experiments))
    # Problems on which the two arms differ, whatever the seed: a part of them for either side.
    side_PM = rng.random((problems, experiments))
    ahead = (disagreement + difference) / 2
    signs_PM = (side_PM < ahead).astype(float) - (side_PM > 1 - disagreement + ahead)
    one, other = 0.5 + signs_PM / 2 + shift_SM[0], 0.5 - signs_PM / 2 + shift_SM[1]
    low_M = seeds_ci(one, other, resamples=500)[:, 1]
    assert 0.72 <= (low_M > 0).mean() <= 0.88
