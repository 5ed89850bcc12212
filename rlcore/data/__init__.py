"""Data: problems from files, the hub or a generator, and the order in which training sees them."""

from rlcore.data.load import load_held_out, load_problems
from rlcore.data.order import ProblemOrder, rank_slice
