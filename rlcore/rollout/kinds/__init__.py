"""Conversation kinds: a small file each, which tells the story of a conversation. `KINDS` names them as recipes do."""

from rlcore.rollout.kinds.correct import CORRECT
from rlcore.rollout.kinds.critique import CRITIQUE
from rlcore.rollout.kinds.feedback import FEEDBACK
from rlcore.rollout.kinds.kind import Ask, Kind, Script
from rlcore.rollout.kinds.stop import STOP
from rlcore.rollout.kinds.verify import VERIFY

KINDS: dict[str, Kind] = {
    "correct": CORRECT,
    "critique": CRITIQUE,
    "verify": VERIFY,
    "feedback": FEEDBACK,
    "stop": STOP,
}

__all__ = ["KINDS", "Ask", "Kind", "Script"]
