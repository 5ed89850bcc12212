"""Texts that end a reply. Its ids stay as they were sampled: the last may say more than the end of such a text."""

from collections.abc import Callable, Sequence


class StopTexts:
    """Looks for texts in what ids say. Engines may ask after every token; what they let pass is cut off afterwards."""

    def __init__(self, texts: Sequence[str], said: Callable[[Sequence[int]], str]):
        """`said` decodes ids."""
        self.texts, self._said = tuple(texts), said
        # A token says at least one byte; a few more, since a character may begin before the window.
        self._window = max(len(text.encode()) for text in texts) + 8

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether one of the texts has just come to its end."""
        return self._in(ids[-self._window :])

    def end(self, ids: Sequence[int]) -> int | None:
        """How many of the ids there are when one of the texts is first whole; None where none is."""
        if not self._in(ids):
            return None
        return next((end for end in range(1, len(ids) + 1) if self.reached(ids[:end])), len(ids))

    def before(self, text: str) -> str:
        """What a reply says before the first of the texts."""
        return text[: min((at for stop in self.texts if (at := text.find(stop)) >= 0), default=len(text))]

    def _in(self, ids: Sequence[int]) -> bool:
        said = self._said(ids)
        return any(text in said for text in self.texts)
