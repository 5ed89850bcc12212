"""Loading: YAML with inheritance (`extends`), `key.sub=value` overrides, and checks that answer in one line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from rlcore.entries import LOSSES
from rlcore.errors import UserError, nearest_path, one_line
from rlcore.recipe.mistakes import AnySection, validated, without_removed
from rlcore.recipe.parse import parse_yaml
from rlcore.recipe.schema import Recipe

FORMS = {"rewards": "a training recipe, for rlcore train", "sizes": "a warm start, for rlcore sft"}
"""What a file is, by a key that only files of its form have."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe at `path` with its parents merged under it and `overrides` ("key.sub=value") on top.

    Raises UserError as `load_section` does.
    """
    recipe = load_section(Recipe, path, overrides)
    return recipe if recipe.output else recipe.model_copy(update={"output": str(Path("runs") / recipe.name)})


def load_section(section: type[AnySection], path: str | Path, overrides: Sequence[str] = ()) -> AnySection:
    """A YAML file of another form than a recipe's, with the same inheritance, overrides and checks.

    Raises UserError, in one line, for a missing or unreadable file, one of another form, an unknown key (naming the
    nearest known one) or a value of the wrong type or range.
    """
    values = _read(Path(path), (), section.called)
    for key in values.keys() & FORMS.keys() - section.model_fields.keys():
        raise UserError(f"{path} is {FORMS[key]}")
    for override in overrides:
        _apply(values, override)
    _anchor_paths(values, Path())
    _read_template(values)
    return validated(section, values, path)


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """The recipe with overrides, which must be right, on top of it."""
    values = _values(recipe, "python")
    for override in overrides:
        _apply(values, override)
    return Recipe.model_validate(values)


def saved_recipe(values: Mapping[str, Any], where: object) -> Recipe:
    """A recipe that was saved with `model_dump`. Raises UserError for one that this version of rlcore cannot read."""
    return validated(Recipe, without_removed(values), f"the recipe in {where} is of another version")


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to an equal recipe."""
    return yaml.safe_dump(_values(recipe, "json"), sort_keys=False, allow_unicode=True, width=120)


def _values(recipe: Recipe, mode: Literal["json", "python"]) -> dict[str, Any]:
    """All keys with their values, but for those that `learner.loss` gives: beside another name they would win."""
    learner = recipe.learner
    given = LOSSES[learner.loss].settings(learner.loss)
    own = {key for key, value in given.items() if getattr(learner, key) == value}
    return recipe.model_dump(mode=mode, exclude={"learner": own})


def _read(path: Path, seen: tuple[Path, ...], called: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{called} {path} does not exist{nearest_path(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UserError(f"{called} {path} cannot be read: {reason}") from None
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"{called} {path} is not YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{called} {path} must be a mapping of keys to values")
    _anchor_paths(values, path.parent)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    parent_path = (path.parent / str(parent)).resolve()
    if parent_path in seen:
        raise UserError(f"{called} {path} extends itself through {parent}")
    return _merge(_read(parent_path, (*seen, path.resolve()), called), values)


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Paths in a recipe that start with ./ or ../ are relative to the file they stand in, wherever the command runs.

    Those that start with ~/ are in the user's home.
    They become absolute: a resolved recipe is saved in the folder of its run, which may go on from another directory.
    """
    for key, value in values.items():
        if isinstance(value, dict):
            _anchor_paths(value, folder)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    _anchor_paths(item, folder)
        elif not isinstance(value, str) or "\n" in value:
            continue
        elif value.startswith("~/"):
            values[key] = str(Path(value).expanduser())
        elif key != "extends" and value.startswith(("./", "../")):
            values[key] = str((folder / value).resolve())


def _read_template(values: dict[str, Any]) -> None:
    """Puts the text of a file that is named as the chat template in its place, so that the recipe holds all of it."""
    model = values.get("model")
    if not isinstance(model, dict):
        return
    named = model.get("chat_template")
    if not isinstance(named, str) or "{" in named:
        return
    try:
        model["chat_template"] = Path(named).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"model.chat_template {named}: that is no template, which has {{{{ ... }}}} in it, and no file of text"
            f"{nearest_path(named)}"
        ) from None


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    """Sets `a.b.0.c=value`; the value is read as YAML, a number picks an entry of a list."""
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise UserError(f"override {override!r} is not of the form key.sub=value")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not YAML: {one_line(error)}") from None
    *parents, last = dotted.split(".")
    here: Any = values
    for part in parents:
        here = _enter(here, part, override)
    if isinstance(here, list):
        here[_index(here, last, override)] = value
    else:
        here[last] = value


def _enter(here: Any, part: str, override: str) -> Any:
    if isinstance(here, dict) and here.get(part) is None:
        here[part] = {}
    inner = here[_index(here, part, override) if isinstance(here, list) else part]
    if not isinstance(inner, (dict, list)):
        raise UserError(f"override {override!r}: {part} is a value, it has no keys")
    return inner


def _index(here: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(here):
        raise UserError(f"override {override!r}: {part} is not an entry of a list of {len(here)}")
    return int(part)
