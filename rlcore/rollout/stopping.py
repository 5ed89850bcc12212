"""Texts that end a reply. The ids stay as sampled, so the last one may say more than the end of such a text."""

from collections.abc import Callable, Sequence


class StopTexts:
    """Finds texts in decoded ids. An engine may ask after every token; else the reply is cut afterwards."""

    def __init__(self, texts: Sequence[str], said: Callable[[Sequence[int]], str]):
        """`said` decodes ids."""
        self.texts, self._said = tuple(texts), said
        # A token says at least one byte; a few more, since a character may begin before the window.
        self._window = max(len(text.encode()) for text in texts) + 8

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether the last id completes one of the texts."""
        return self._in(ids[-self._window :])

    def end(self, ids: Sequence[int]) -> int | None:
        """The number of ids up to the first that completes a text; None if none does."""
        if not self._in(ids):
            return None
        return next((end for end in range(1, len(ids) + 1) if self.reached(ids[:end])), len(ids))

    def before(self, text: str) -> str:
        """The part of a reply before the first of the texts."""
        return text[: min((at for stop in self.texts if (at := text.find(stop)) >= 0), default=len(text))]

    def _in(self, ids: Sequence[int]) -> bool:
        said = self._said(ids)
        return any(text in said for text in self.texts)
