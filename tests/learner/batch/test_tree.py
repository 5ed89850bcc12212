"""Trees of trajectories against sets of their beginnings."""

import dataclasses

import numpy as np
import pytest

from rlcore.learner.batch.planning import plan_micro_batches
from rlcore.learner.batch.tree import Tree, in_order
from rlcore.types import TokenBatch
from tests.learner.tiny import branching_batch, grouped_batch, random_batch


def read(batch: TokenBatch, row: int) -> tuple[int, ...]:
    """The ids of a trajectory up to the one before its last loss token."""
    start, stop = batch.offsets_B1[row : row + 2]
    last = np.flatnonzero(batch.loss_mask_N[start:stop])[-1]
    return tuple(batch.ids_N[start : start + last].tolist())


def beginnings(batch: TokenBatch, rows) -> set[tuple[int, ...]]:
    return {ids[: at + 1] for ids in (read(batch, row) for row in rows) for at in range(len(ids))}


@pytest.mark.parametrize("batch", [random_batch(), grouped_batch(), branching_batch()])
def test_every_beginning_is_one_node_and_every_path_reads_its_trajectory(batch):
    rows = in_order(batch, np.arange(len(batch.lengths_B)))
    assert sorted(rows) == list(range(len(rows)))
    tree = Tree.of(batch, rows)
    nodes = {}
    for row, node_T in zip(rows, tree.node_RT, strict=True):
        ids = read(batch, row)
        for at in range(len(ids)):
            assert nodes.setdefault(node_T[at], ids[: at + 1]) == ids[: at + 1]
    assert sorted(nodes) == list(range(len(nodes)))
    assert set(nodes.values()) == beginnings(batch, rows)


@pytest.mark.parametrize("batch", [random_batch(), grouped_batch(), branching_batch(), grouped_batch(1, 9, 100)])
def test_every_node_looks_back_once_over_all_that_came_before_it(batch):
    rows = in_order(batch, np.arange(len(batch.lengths_B)))
    tree = Tree.of(batch, rows)
    paths, place_N = tree.paths()
    parent = {}
    for node_T, length in zip(tree.node_RT, tree.length_R, strict=True):
        parent |= {int(node): node_T[:at].tolist() for at, node in enumerate(node_T[:length])}
    asked, seen = [], []
    for node_RT, start in paths:
        for node_T in node_RT:
            asked += node_T[start:].tolist()
            seen += [node_T[:at].tolist() for at in range(start, len(node_T))]
    for node, place in enumerate(place_N):
        assert asked[place] == node
        assert seen[place] == parent[node]


def test_continuations_of_a_long_prompt_do_not_ask_for_it_again():
    batch = grouped_batch(1, 9, 100)
    paths, _ = Tree.of(batch, in_order(batch, np.arange(9))).paths()
    assert [(len(node_RT), start) for node_RT, start in paths] == [(1, 0), (8, 100)]


@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
def test_micro_batches_hold_every_trajectory_once_and_as_many_nodes_as_planned(budget):
    batch = branching_batch()
    planned = plan_micro_batches(batch, np.arange(len(batch.lengths_B)), budget, tree=True)
    assert sorted(np.concatenate([each.rows_R for each in planned])) == list(range(len(batch.lengths_B)))
    for each in planned:
        assert each.tokens == len(beginnings(batch, each.rows_R))
        assert each.tokens <= budget or len({read(batch, row) for row in each.rows_R}) == 1


def test_what_comes_after_the_last_loss_token_is_not_computed():
    batch = random_batch(6)
    mask = batch.loss_mask_N & (batch.turn_N == 1)
    first = dataclasses.replace(batch, loss_mask_N=mask)
    (planned,) = plan_micro_batches(first, np.arange(6), 10_000, tree=True)
    assert planned.tokens == len(beginnings(first, range(6))) < len(beginnings(batch, range(6)))
    assert plan_micro_batches(first, np.arange(0), 10, tree=True) == []
