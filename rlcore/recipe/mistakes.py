"""What pydantic found wrong, in one line."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rlcore.errors import UserError, did_you_mean
from rlcore.recipe.section import Section, section_in

AnySection = TypeVar("AnySection", bound=Section)

REMOVED = {
    **dict.fromkeys(
        (f"rollout.vllm.{phase}_deadline" for phase in ("start", "probe", "request", "publish")),
        "rollout.vllm.deadline is the one for all",
    ),
    "checkpoint.resume": "a run resumes from the newest whole checkpoint in its folder; another output starts anew",
    "rollout.vllm.pause": "requests that run at a publication always go on with the new weights",
}
"""Keys of former recipes, and what holds in their place. A saved recipe is read without them."""


def validated(form: type[AnySection], values: Mapping[str, Any], where: object) -> AnySection:
    """The values as a section of this form. Raises UserError, which begins with `where`, for the first mistake."""
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_mistake(error, form)}") from None


def _first_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake by its dotted key, and how many more there are.

    Unknown keys come first: a misspelt key is also missing under its right name.
    """
    first = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        if where in REMOVED:
            return f"{where} is no key any more: {REMOVED[where]}{more}"
        *parents, key = first["loc"]
        return f"unknown key {where}{did_you_mean(str(key), _section_at(model, parents).model_fields)}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return (f"{where}: " if where else "") + message + more
    return f"{where}: {message[0].lower()}{message[1:]}, not {first['input']!r}{more}"


def without_removed(values: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """A saved recipe, or the section `at` in it, without the keys of former recipes."""
    kept = {key: value for key, value in values.items() if f"{at}{key}" not in REMOVED}
    return {k: without_removed(v, f"{at}{k}.") if isinstance(v, Mapping) else v for k, v in kept.items()}


def _section_at(model: type[BaseModel], loc: list[int | str]) -> type[BaseModel]:
    for key in loc:
        if isinstance(key, str):
            model = section_in(model.model_fields[key].annotation) or model
    return model
