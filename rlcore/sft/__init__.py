"""Supervised training: warm starts of small policies, and rounds on a policy's own conversations."""

from rlcore.sft.schema import WarmStart
from rlcore.sft.warm_start import warm_start
