"""Which trajectories go through the model together: minibatches, and micro-batches within a budget of tokens.

The trajectories of a group begin with the same prompt. Where that saves enough, its tokens are computed once a
micro-batch, and the trajectories continue from its keys and values.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from rlcore.learner.batch.tree import in_order, last_loss_tokens, shared_beginnings
from rlcore.types import TokenBatch

WORTHWHILE = 0.2
"""Prompts are shared when that spares at least this share of the tokens: attention that continues a prompt needs an
explicit mask, which costs more a token than plain causal attention."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One micro-batch to be: its trajectories, and how many tokens at their start are computed once for equal ones."""

    rows_R: np.ndarray
    prefix: int
    tokens: int
    """Tokens that the model computes, padding included."""
    packed: bool = False
    """Whether they are one after the other in one row, without padding."""


def split_minibatches(batch: TokenBatch, parts: int, seed: tuple[int, ...]) -> list[np.ndarray]:
    """Indices of the trajectories of each of `parts` minibatches: a shuffle that `seed` fixes, dealt evenly.

    Over the batch of all ranks it does not depend on their number.
    """
    count = len(batch.lengths_B)
    order_B = np.arange(count) if parts == 1 else np.random.default_rng(seed).permutation(count)
    return np.array_split(order_B, parts)


def plan_micro_batches(
    batch: TokenBatch,
    chosen: np.ndarray,
    budget: int,
    *,
    share_prompts: bool = False,
    pack: bool = False,
    tree: bool = False,
) -> list[Planned]:
    """Micro-batches of at most `budget` padded tokens for those `chosen` trajectories that have loss tokens.

    `pack` puts them into one row where no prompts are shared; `tree` makes them trees, whatever the other two say. A
    trajectory longer than the budget gets a micro-batch of its own. But for trees, longest first: too large a budget
    fails at once.
    """
    first_loss_B = _first_loss_tokens(batch)
    chosen = chosen[first_loss_B[chosen] < batch.lengths_B[chosen]]
    if tree:
        return _plan_trees(batch, chosen, budget)
    if share_prompts:
        # The first loss token is predicted at the one before it, so that one is computed for each trajectory.
        prefix_B = np.maximum(first_loss_B - 1, 0)
        siblings = _siblings(batch, chosen, prefix_B)
        spared = sum((len(rows) - 1) * int(prefix_B[rows[0]]) for rows in siblings)
        if spared > WORTHWHILE * batch.lengths_B[chosen].sum():
            return _plan_shared(siblings, prefix_B, batch.lengths_B - prefix_B, budget)
    return (_plan_packed if pack else _plan_alone)(batch.lengths_B, chosen, budget)


def same_prompts(batch: TokenBatch, chosen: np.ndarray) -> list[np.ndarray]:
    """The chosen trajectories, those together whose tokens up to the first loss token are the same."""
    return _siblings(batch, chosen, np.minimum(_first_loss_tokens(batch), batch.lengths_B))


def _first_loss_tokens(batch: TokenBatch) -> np.ndarray:
    """Place of each trajectory's first loss token, `[B]`; at least its length if it has none."""
    place_n = np.append(np.flatnonzero(batch.loss_mask_N), len(batch.loss_mask_N))
    start_B = batch.offsets_B1[:-1]
    return place_n[np.searchsorted(place_n, start_B)] - start_B


def _plan_alone(lengths_B: np.ndarray, chosen: np.ndarray, budget: int) -> list[Planned]:
    order = chosen[np.argsort(-lengths_B[chosen], kind="stable")]
    plan, start = [], 0
    while start < len(order):
        longest = int(lengths_B[order[start]])
        rows_R = order[start : start + max(1, budget // longest)]
        plan.append(Planned(rows_R, prefix=0, tokens=len(rows_R) * longest))
        start += len(rows_R)
    return plan


def _plan_packed(lengths_B: np.ndarray, chosen: np.ndarray, budget: int) -> list[Planned]:
    """Each trajectory, longest first, goes into the first row that has room for it (first fit decreasing)."""
    rows: list[list[int]] = []
    room: list[int] = []
    for row in chosen[np.argsort(-lengths_B[chosen], kind="stable")]:
        length = int(lengths_B[row])
        place = next((at for at, left in enumerate(room) if left >= length), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(budget)
        rows[place].append(row)
        room[place] -= length
    return [Planned(np.array(each), 0, int(lengths_B[each].sum()), packed=True) for each in rows]


def _plan_trees(batch: TokenBatch, chosen: np.ndarray, budget: int) -> list[Planned]:
    """Trajectories that begin alike follow each other, and are cut apart only where the budget ends."""
    if not len(chosen):
        return []
    rows_R = in_order(batch, chosen)
    length_R, shared_R = last_loss_tokens(batch)[rows_R], shared_beginnings(batch, rows_R)
    plan, start, tokens = [], 0, 0
    for at, (length, shared) in enumerate(zip(length_R, shared_R, strict=True)):
        if at > start and tokens + length - shared > budget:
            plan.append(Planned(rows_R[start:at], 0, tokens))
            start, tokens, shared = at, 0, 0
        tokens += int(length - shared)
    return [*plan, Planned(rows_R[start:], 0, tokens)]


def _siblings(batch: TokenBatch, chosen: np.ndarray, prefix_B: np.ndarray) -> list[np.ndarray]:
    """The chosen trajectories, those with the same prefix together."""
    siblings: dict[bytes, list[int]] = defaultdict(list)
    for row in chosen:
        start = batch.offsets_B1[row]
        siblings[batch.ids_N[start : start + prefix_B[row]].tobytes()].append(row)
    return [np.array(rows) for rows in siblings.values()]


def _plan_shared(siblings: list[np.ndarray], prefix_B: np.ndarray, rest_B: np.ndarray, budget: int) -> list[Planned]:
    """Trajectories with equal prefixes stay together; the prefixes in one micro-batch are equally long."""
    pieces = [piece for rows in siblings for piece in _cut(rows, prefix_B, rest_B, budget)]
    pieces.sort(key=lambda piece: (-piece.prefix, -int(rest_B[piece.rows_R].max())))
    plan: list[Planned] = []
    for piece in pieces:
        if plan and plan[-1].prefix == piece.prefix:
            # Sorted by their longest rest, so the pieces planned before set the width.
            width = int(rest_B[plan[-1].rows_R].max())
            tokens = plan[-1].tokens + piece.prefix + len(piece.rows_R) * width
            if tokens <= budget:
                plan[-1] = Planned(np.append(plan[-1].rows_R, piece.rows_R), piece.prefix, tokens)
                continue
        plan.append(piece)
    return plan


def _cut(rows: np.ndarray, prefix_B: np.ndarray, rest_B: np.ndarray, budget: int) -> list[Planned]:
    """The trajectories of one prompt in pieces that fit the budget."""
    prefix, longest = int(prefix_B[rows[0]]), int(rest_B[rows].max())
    size = max(1, (budget - prefix) // longest)
    pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [Planned(piece, prefix, prefix + len(piece) * int(rest_B[piece].max())) for piece in pieces]
