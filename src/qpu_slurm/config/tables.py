# SPDX-License-Identifier: Apache-2.0
"""Reads a table of the configuration into a struct's fields, and collects all of its problems.

`msgspec.convert` stops at the first problem, but an admin wants to see all of them. So each field is
converted by itself, against its own type.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from qpu_slurm.system.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_QUOTED_LENGTH = 64


class Problems:
    """The problems of a file, one sentence each.

    Args:
        path: The file, which every sentence names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: list[str] = []

    def apart(self) -> Problems:
        """Return another list for the same file."""
        return Problems(self._path)

    def add(self, sentence: str) -> None:
        """Add a problem: its place, and what was expected there."""
        self.found.append(f"{self._path}: {sentence}")

    def unknown_keys(self, table: Mapping[str, Any], where: str, known: Collection[str]) -> None:
        """Add the unknown keys as problems, each with the most similar known one."""
        for key in table:
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys are {', '.join(known)}."
                self.add(f"{where}unknown key {quote(key)}; {hint}")

    def fields(
        self, struct: type[msgspec.Struct], table: Mapping[str, Any], where: str, keys: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the fields of `struct` that `table` has; add those with a wrong value as problems.

        Args:
            struct: The schema.
            table: A table of the configuration. Keys that are not in `keys` are ignored.
            where: The prefix of a key in a sentence, such as `[slurm] `.
            keys: The field's name for each key of the table.
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
        """Read a table that may contain known keys only; see `fields`."""
        if not isinstance(table, dict):
            self.add(f"{where.strip()}: expected a table.")
            return {}
        self.unknown_keys(table, where, keys)
        return self.fields(struct, table, where, keys)

    def missing(
        self, struct: type[msgspec.Struct], given: Collection[str], where: str, keys: Mapping[str, str]
    ) -> None:
        """Add the required fields of `struct` that are not among the keys in `given` as problems."""
        fields = {field.name: field for field in msgspec.structs.fields(struct)}
        for key, name in keys.items():
            if fields[name].required and key not in given:
                self.add(f"{where}{key} is missing: expected {_expected(fields[name].type)}.")


def keys_of(struct: type[msgspec.Struct], *, leave: Collection[str] = ()) -> dict[str, str]:
    """Return the keys of a table that has a struct's field names as keys, without some."""
    return {name: name for name in struct.__struct_fields__ if name not in leave}


def quote(value: object) -> str:
    """Return a value as written, shortened to one line."""
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
    """Return the description of a type, or of the first type of a union that has one."""
    if get_origin(type_) is Annotated:
        return next((item for item in type_.__metadata__ if isinstance(item, msgspec.Meta)), None)
    if get_origin(type_) is Literal or not get_args(type_):
        return None
    return _meta(get_args(type_)[0])


def _extra(type_: Any) -> dict[str, Any]:  # noqa: ANN401 - any annotation
    meta = _meta(type_)
    return (meta.extra if meta else None) or {}


def _expected(type_: Any) -> str:  # noqa: ANN401 - any annotation
    if get_origin(type_) in {Union, UnionType} and get_origin(get_args(type_)[0]) is Literal:
        type_ = get_args(type_)[0]
    if get_origin(type_) is Literal:
        return " or ".join(f'"{choice}"' for choice in get_args(type_))
    meta = _meta(type_)
    return meta.description if meta and meta.description else str(type_)


def _instead(value: object, type_: Any) -> str:  # noqa: ANN401 - any annotation
    if isinstance(value, dict):
        return "" if _extra(type_).get("table") else ", not a table"
    if isinstance(value, list) and not _extra(type_).get("list"):
        return ", not a list"
    return "" if _extra(type_).get("unquoted") else f", not {quote(value)}"
