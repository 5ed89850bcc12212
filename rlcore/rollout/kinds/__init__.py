"""Conversation kinds: a small file each, which tells the story of a conversation. `KINDS` names them as recipes do."""

from rlcore.recipe.schema import Conversation
from rlcore.rollout.kinds.correct import CORRECT
from rlcore.rollout.kinds.critique import CRITIQUE
from rlcore.rollout.kinds.feedback import FEEDBACK
from rlcore.rollout.kinds.instructions import INSTRUCTIONS
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


def read_script(section: Conversation) -> Script:
    """What a recipe says of a conversation, with names of instructions and the kind's own texts filled in."""
    instruction = INSTRUCTIONS.get(section.instruction, section.instruction)
    return Script(section.attempts, instruction, section.review or KINDS[section.kind].review)


__all__ = ["KINDS", "Ask", "Kind", "Script", "read_script"]
