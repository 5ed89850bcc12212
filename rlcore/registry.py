"""Open lists: what a key of a recipe may name, be it registered here or a user's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from rewards.names import UnknownName, find
from rlcore.errors import UserError

Entry = TypeVar("Entry")


@dataclass(frozen=True, eq=False)
class Registry(Generic[Entry]):
    """Entries by name: a registered one, `package.module:name`, or `path/to/file.py:name`.

    `Annotated[str, registry]` is a key of a recipe that names an entry. Registered entries are named by where they
    are and imported only when asked for: a registry may lie below what it lists.
    """

    what: str
    """An entry's name in errors."""
    form: Any
    """The class of an entry, or `Callable`."""
    registered: Mapping[str, str]
    """Where each registered name leads: `package.module:name`."""

    def __getitem__(self, name: str) -> Entry:
        """The entry. Raises UserError, in one line, for a name that leads nowhere or to something of another form."""
        try:
            entry = find(self.what, name, self.registered)
        except UnknownName as error:
            raise UserError(str(error)) from error
        if not isinstance(entry, self.form):
            raise UserError(f"{self.what} '{name}' is a {type(entry).__name__}, not a {self.form.__name__}")
        return entry  # type: ignore[no-any-return]

    def check(self, name: str) -> str:
        """The name, if it leads to an entry. Raises ValueError where it does not."""
        if name not in self.registered:
            try:
                self[name]
            except UserError as error:
                raise ValueError(str(error)) from None
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Values of a key annotated with the registry are checked."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))
