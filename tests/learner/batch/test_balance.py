"""How trajectories are shared out between ranks."""

import numpy as np
import pytest

from rlcore.learner.batch.balance import balanced_parts
from rlcore.learner.batch.planning import same_prompts
from tests.learner.tiny import grouped_batch, random_batch


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_every_unit_once_and_no_part_much_fuller_than_it_must_be(parts):
    costs = np.random.default_rng(0).lognormal(5, 1, 64).astype(int)
    shares = balanced_parts(costs, parts)
    assert sorted(np.concatenate(shares)) == list(range(64))
    loads = [costs[share].sum() for share in shares]
    assert max(loads) <= 4 / 3 * max(costs.sum() / parts, costs.max())


def test_fewer_units_than_parts_leave_parts_empty():
    shares = balanced_parts(np.array([3, 5]), 4)
    assert [len(share) for share in shares] == [1, 1, 0, 0]


def test_a_group_is_a_unit_and_strangers_are_not():
    grouped = grouped_batch(groups=2, size=3)
    assert [list(rows) for rows in same_prompts(grouped, np.arange(6))] == [[0, 1, 2], [3, 4, 5]]
    assert [list(rows) for rows in same_prompts(grouped, np.array([4, 1, 2]))] == [[4], [1, 2]]
    batch = random_batch(5)
    first = [batch.ids_N[start : start + 2].tolist() for start in batch.offsets_B1[:-1]]
    assert len({tuple(ids) for ids in first}) == len(same_prompts(batch, np.arange(5))) == 5
