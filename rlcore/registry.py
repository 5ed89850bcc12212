"""Open lists: entries that a recipe may name, registered ones or a user's own."""

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

    `Annotated[str, registry]` is a key of a recipe that names an entry. Registered entries are imported only when
    looked up, so a registry may be in a lower room than what it lists.
    """

    what: str
    """The word for an entry in errors."""
    form: Any
    """The class of an entry, or `Callable`."""
    registered: Mapping[str, str]
    """`package.module:name` by registered name."""

    def __getitem__(self, name: str) -> Entry:
        """The entry. Raises UserError for a name that leads nowhere or to something of another form."""
        try:
            entry = find(self.what, name, self.registered)
        except UnknownName as error:
            raise UserError(str(error)) from error
        if not isinstance(entry, self.form):
            raise UserError(f"{self.what} '{name}' is a {type(entry).__name__}, not a {self.form.__name__}")
        return entry  # type: ignore[no-any-return]

    def check(self, name: str) -> str:
        """The name itself. Raises ValueError if it does not lead to an entry."""
        if name not in self.registered:
            try:
                self[name]
            except UserError as error:
                raise ValueError(str(error)) from None
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Checks the values of keys annotated with the registry."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))
