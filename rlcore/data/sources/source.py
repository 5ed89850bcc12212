"""What a source says about its rows."""

from collections.abc import Callable
from dataclasses import dataclass

from rlcore.data.table import Row


@dataclass(frozen=True)
class Source:
    """The form of a data set: where its text and gold answers stand, and where the hub keeps it."""

    text: str
    """Column of the problem's text."""
    gold: tuple[str, ...] = ()
    """Columns that every row must have for the rewards."""
    id: str = "id"
    """Column of the row's own id; the id is a hash of the text where there is none."""
    domain: str = "math"
    hub: str | None = None
    """Hub name, used when the recipe gives no path."""
    subset: str | None = None
    """Configuration of the hub data set."""
    complete: Callable[[Row], Row] | None = None
    """Adds columns that follow from others."""
    in_split: Callable[[Row, str], bool] | None = None
    """Whether a row belongs to a split, for files that hold all splits."""
    ask: Callable[[Row], str] | None = None
    """The question put to the policy, where it is more than the text."""
