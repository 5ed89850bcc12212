"""Text by demonstration: rows with `train` (a list of inputs and outputs), `input` and `output`, all of them text.

Beside an input may stand `paraphrases`, a list of other words for it.
"""

from rlcore.data.tasks import GOLD, unlike_a_task, written_row
from rlcore.entries import Source

EXAMPLES = Source(text="prompt", gold=GOLD, refusal=unlike_a_task, complete=written_row)
