"""Loading: YAML with inheritance (`extends`), `key.sub=value` overrides, and checks that answer in one line."""

import os
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rlcore.hints import did_you_mean, nearest_path
from rlcore.recipe.schema import Recipe
from rlcore.types import UserError


def load_recipe(path: str | os.PathLike[str], overrides: list[str] | None = None) -> Recipe:
    """The recipe at `path` with its parents merged under it and `overrides` ("key.sub=value") on top.

    Raises UserError, in one line, for a missing or unreadable file, an unknown key (naming the nearest known one) or a
    value of the wrong type or range.
    """
    values = _read(Path(path), ())
    for override in overrides or []:
        _apply(values, override)
    _anchor_paths(values, Path())
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_one_line(error)}") from None
    return recipe if recipe.output else recipe.model_copy(update={"output": str(Path("runs") / recipe.name)})


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"recipe {path} does not exist{nearest_path(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {path} cannot be read: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"recipe {path} must be a mapping of keys to values")
    _anchor_paths(values, path.parent)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    parent_path = (path.parent / str(parent)).resolve()
    if parent_path in seen:
        raise UserError(f"recipe {path} extends itself through {parent}")
    return _merge(_read(parent_path, (*seen, path.resolve())), values)


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Paths in a recipe that start with ./ or ../ are relative to the file they stand in, wherever the command runs.

    What they become no longer starts so, because a resolved recipe is saved in the folder of its run.
    """
    for key, value in values.items():
        if isinstance(value, dict):
            _anchor_paths(value, folder)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    _anchor_paths(item, folder)
        elif isinstance(value, str) and key != "extends" and value.startswith(("./", "../")) and "\n" not in value:
            path, here = (folder / value).resolve(), Path.cwd()
            values[key] = str(path.relative_to(here) if path.is_relative_to(here) else path)


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
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}: the value is not YAML: {' '.join(str(error).split())}") from None
    if isinstance(value, str):
        value = _number(value)
    *parents, last = dotted.split(".")
    here: Any = values
    for part in parents:
        here = _enter(here, part, override)
    if isinstance(here, list):
        here[_index(here, last, override)] = value
    else:
        here[last] = value


def _number(text: str) -> str | float:
    """YAML 1.1 reads 3e-4 as text; people mean a number."""
    try:
        return float(text) if "e" in text.lower() else text
    except ValueError:
        return text


def _enter(here: Any, part: str, override: str) -> Any:
    if isinstance(here, list):
        return here[_index(here, part, override)]
    if here.get(part) is None:
        here[part] = {}
    if not isinstance(here[part], (dict, list)):
        raise UserError(f"override {override!r}: {part} is a value, it has no keys")
    return here[part]


def _index(here: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(here):
        raise UserError(f"override {override!r}: {part} is not an entry of a list of {len(here)}")
    return int(part)


def _one_line(error: ValidationError) -> str:
    """The first mistake, and how many more there are."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}{did_you_mean(str(first['loc'][-1]), _known_keys(first['loc'][:-1]))}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return (f"{where}: " if where else "") + message + more
    return f"{where}: {message[0].lower()}{message[1:]}, not {first['input']!r}{more}"


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Recipe
    for part in loc:
        if isinstance(part, int):
            continue
        model = _model_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The section class inside `X`, `X | None` or `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_model_in(arg) for arg in get_args(annotation) if arg is not type(None))
