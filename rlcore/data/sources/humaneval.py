"""HumanEval: Python functions to complete from their docstring (Chen et al. 2021, arXiv 2107.03374).

The hub has one split of it, `test`.
"""

from rlcore.entries import Source

HUMANEVAL = Source(
    text="prompt",
    gold=("test", "entry_point"),
    id="task_id",
    domain="code",
    hub="openai/openai_humaneval",
)
