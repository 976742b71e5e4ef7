# SPDX-License-Identifier: Apache-2.0
"""Reads a table of what the admin wrote into a struct's fields, and notes everything that is wrong with it.

`msgspec.convert` stops at the first thing wrong, and an admin wants to mend all in one go; so a struct is
converted field by field, each against its own type.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import msgspec

from qpu_slurm.system.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_QUOTED_LENGTH = 64


class Problems:
    """What is wrong with a file, one sentence each.

    Args:
        path: The file; every sentence names it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: list[str] = []

    def add(self, sentence: str) -> None:
        """Note a problem: where it is, and what was expected there."""
        self.found.append(f"{self._path}: {sentence}")

    def unknown_keys(self, table: Mapping[str, Any], where: str, known: Collection[str]) -> None:
        """Note the keys that mean nothing, with the known one that looks most like each."""
        for key in table:
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys are {', '.join(known)}."
                self.add(f"{where}unknown key {quote(key)}; {hint}")

    def fields(
        self, struct: type[msgspec.Struct], table: Mapping[str, Any], where: str, keys: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the fields of `struct` that stand in `table` and are right; note those that are not.

        Args:
            struct: Its fields are the schema.
            table: What the admin wrote; keys that are not in `keys` are left alone.
            where: What comes before a key in a sentence, such as `[slurm] `.
            keys: What the table calls a field: its key, and the field's name.
        """
        types = {field.name: field.type for field in msgspec.structs.fields(struct)}
        values = {}
        for key in filter(keys.__contains__, table):
            value, type_ = table[key], types[keys[key]]
            try:
                values[keys[key]] = _convert(value, type_)
            except (ValueError, OverflowError):  # msgspec's ValidationError is a ValueError
                self.add(f"{where}{key}: expected {_expected(type_)}{_instead(value, type_)}.")
        return values

    def table(
        self,
        struct: type[msgspec.Struct],
        table: Any,  # noqa: ANN401 - whatever stands there
        where: str,
        keys: Mapping[str, str],
    ) -> dict[str, Any]:
        """Read a table all of whose keys have to be known; see `fields`."""
        if not isinstance(table, dict):
            self.add(f"{where.strip()}: expected a table.")
            return {}
        self.unknown_keys(table, where, keys)
        return self.fields(struct, table, where, keys)

    def missing(
        self, struct: type[msgspec.Struct], given: Collection[str], where: str, keys: Mapping[str, str]
    ) -> None:
        """Note the required fields of `struct` that no table has; `given` are the keys that some have."""
        fields = {field.name: field for field in msgspec.structs.fields(struct)}
        for key, name in keys.items():
            if fields[name].required and key not in given:
                self.add(f"{where}{key} is missing: expected {_expected(fields[name].type)}.")


def keys_of(struct: type[msgspec.Struct], *, leave: Collection[str] = ()) -> dict[str, str]:
    """Return the keys of a table that calls a struct's fields what they are called, without some."""
    return {name: name for name in struct.__struct_fields__ if name not in leave}


def quote(value: object) -> str:
    """Show a value as written, on one line and not at length."""
    text = repr(value)
    return text if len(text) <= _QUOTED_LENGTH else f"{text[:_QUOTED_LENGTH]}…"


def _convert(value: object, type_: Any) -> Any:  # noqa: ANN401 - as msgspec.convert has it
    if isinstance(value, str) and _extra(type_).get("duration"):
        value = parse_duration(value)
    return msgspec.convert(value, type_, dec_hook=_convert_path)


def _convert_path(type_: type, value: object) -> Any:  # noqa: ANN401 - as msgspec has it
    if type_ is not Path or not isinstance(value, str) or "\0" in value or not Path(value).is_absolute():
        raise ValueError("not an absolute path")
    return Path(value)


def _meta(type_: Any) -> msgspec.Meta | None:  # noqa: ANN401 - any annotation
    """Find the words that come with a type, or with the first of a union's types."""
    if get_origin(type_) is Annotated:
        return next((item for item in type_.__metadata__ if isinstance(item, msgspec.Meta)), None)
    if get_origin(type_) is Literal or not get_args(type_):
        return None
    return _meta(get_args(type_)[0])


def _extra(type_: Any) -> dict[str, Any]:  # noqa: ANN401 - any annotation
    meta = _meta(type_)
    return (meta.extra if meta else None) or {}


def _expected(type_: Any) -> str:  # noqa: ANN401 - any annotation
    if get_origin(type_) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(type_))
    meta = _meta(type_)
    return meta.description if meta and meta.description else str(type_)


def _instead(value: object, type_: Any) -> str:  # noqa: ANN401 - any annotation
    if isinstance(value, dict):
        return ", not a table"
    if isinstance(value, list) and not _extra(type_).get("list"):
        return ", not a list"
    return "" if _extra(type_).get("unquoted") else f", not {quote(value)}"
