"""The order of problems: every epoch whole, any step on its own, the same for any number of ranks."""

from collections import Counter

import pytest

from rlcore.data import ProblemOrder, rank_slice
from rlcore.errors import UserError
from rlcore.types import Problem

PROBLEMS = [Problem(str(i), ({"role": "user", "content": str(i)},)) for i in range(10)]


def ids(problems: list[Problem]) -> list[str]:
    return [problem.id for problem in problems]


def test_every_epoch_sees_each_problem_once_even_when_batches_span_epochs():
    order = ProblemOrder(PROBLEMS, seed=3)
    stream = [i for step in range(10) for i in ids(order.batch(step, 3))]
    epochs = [stream[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == sorted(ids(PROBLEMS)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_step_is_the_same_whether_reached_or_started_at():
    reached = [ids(ProblemOrder(PROBLEMS, 7).batch(step, 4)) for step in range(20)]
    assert ids(ProblemOrder(PROBLEMS, 7).batch(17, 4)) == reached[17]


def test_a_batch_larger_than_the_data_takes_whole_epochs():
    counts = Counter(ids(ProblemOrder(PROBLEMS, 0).batch(1, 30)))
    assert set(counts.values()) == {3}


def test_seeds_give_different_orders_and_input_order_is_not_kept():
    first, second = (ids(ProblemOrder(PROBLEMS, seed).batch(0, 10)) for seed in (0, 1))
    assert first != second
    assert first != ids(PROBLEMS)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_together_hold_the_batch(world):
    batch = ProblemOrder(PROBLEMS, 0).batch(5, 8)
    assert [problem for rank in range(world) for problem in rank_slice(batch, rank, world)] == batch


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="8 problems a step do not divide evenly over 3 ranks"):
        rank_slice(PROBLEMS[:8], 0, 3)
