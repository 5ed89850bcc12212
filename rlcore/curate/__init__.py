"""Curation: which problems a policy should train on, by how often it solves them and by what they share."""

from rlcore.curate.options import CurateOptions, add_arguments, parse_options

__all__ = ["CurateOptions", "add_arguments", "parse_options"]
