r"""MATH: competition mathematics (Hendrycks et al. 2021, arXiv 2103.03874) and MATH-500 (Lightman et al. 2023).

MATH keeps its gold answer in the last `\boxed{}` of `solution`, MATH-500 in `answer`; here every row has `answer`.
"""

from rlcore.data.table import Row
from rlcore.entries import Source


def _with_answer(row: Row) -> Row:
    return row if row.get("answer") else {**row, "answer": row.get("solution")}


MATH = Source(
    text="problem",
    gold=("answer",),
    id="unique_id",
    hub="DigitalLearningGmbH/MATH-lighteval",
    complete=_with_answer,
)
