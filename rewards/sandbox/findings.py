"""What tests have found of a program."""

from __future__ import annotations

import json


class Findings:
    """Tests passed of all, why the first failed, and why they could not be run at all."""

    def __init__(self, total: int, partial: bool) -> None:
        self.total, self.partial = total, partial
        self.passed = 0
        self.first = self.error = ""

    def add(self, failure: str | None) -> bool:
        """Count one test. Returns whether it is worth going on."""
        self.passed += failure is None
        self.first = self.first or failure or ""
        return self.partial or failure is None

    def told(self) -> bytes:
        """For the judge, who hears them."""
        return json.dumps([self.passed, self.total, self.first, self.error]).encode()

    def hear(self, told: bytes) -> None:
        """Take over what another process has found."""
        self.passed, self.total, self.first, self.error = json.loads(told)
