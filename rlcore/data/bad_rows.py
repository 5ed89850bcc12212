"""Unusable rows: refused in one line that gives their places, or left out and listed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlcore.errors import UserError

SHOWN, LISTED = 5, 200
"""Most places named in an error, and in a list of rows left out."""


@dataclass
class BadRows:
    """Collects bad rows: raises UserError at the first kind of them, or with `skip` lists them by reason."""

    skip: bool
    places: dict[str, list[int]] = field(default_factory=dict)
    """Lines or rows, counted from 1, that were left out for each reason."""

    def refuse(self, error: str, reason: str, places: Sequence[int]) -> None:
        """Records the rows at `places`, or raises UserError with the line `error`."""
        if not self.skip:
            raise UserError(error)
        self.places.setdefault(reason, []).extend(places)

    def summary(self, name: str, unit: str, total: int) -> str:
        """One line on how many of `total` rows were left out, where and why; empty if none was."""
        count = sum(map(len, self.places.values()))
        if not count:
            return ""
        reasons = "; ".join(
            f"{reason}: {unit}{'s' * (len(at) > 1)} {numbers(at, LISTED)}" for reason, at in self.places.items()
        )
        return f"{name}: left out {count:,} of {total:,} rows: {reasons}"


def numbers(places: Sequence[int], limit: int = SHOWN) -> str:
    """`4, 9, 12, ...`: at most `limit` of them."""
    return ", ".join(map(str, places[:limit])) + (", ..." if len(places) > limit else "")
