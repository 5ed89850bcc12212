"""What pydantic found wrong, in one line."""

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from rlcore.errors import did_you_mean


def first_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake in values for `model`, by its dotted key, and how many more there are.

    Unknown keys come first: a misspelt key is also missing under its right name.
    """
    first = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        *parents, key = first["loc"]
        return f"unknown key {where}{did_you_mean(str(key), _section_at(model, parents).model_fields)}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return (f"{where}: " if where else "") + message + more
    return f"{where}: {message[0].lower()}{message[1:]}, not {first['input']!r}{more}"


def _section_at(model: type[BaseModel], loc: list[int | str]) -> type[BaseModel]:
    for key in loc:
        if isinstance(key, str):
            model = _model_in(model.model_fields[key].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel]:
    """The section class inside `X`, `X | None` or `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_model_in(arg) for arg in get_args(annotation) if arg is not type(None))
