"""Hive partitions: folders `name=value` between the prefix and the file are columns of the file.

A value is text, and becomes what the Model declares the column to be just as a CSV's value does: month=01 is 1 as a
Number and 01 as a Category. What is escaped with % is decoded; __HIVE_DEFAULT_PARTITION__ and nothing are null."""

from __future__ import annotations

import re
from urllib.parse import unquote

NULL = "__HIVE_DEFAULT_PARTITION__"
KIND = "partition"  # the type that is told of such a column

_FOLDER = re.compile(r"([A-Za-z_][A-Za-z0-9_.\-]*)=(.*)")


def of(key: str) -> dict[str, str]:
    """The columns that a key's folders say, by name; a value that is null is empty, as in a CSV. Where a name is there
    twice, the inner folder counts."""
    found = (_FOLDER.fullmatch(folder) for folder in key.split("/")[:-1])
    values = {match[1]: unquote(match[2]) for match in found if match}
    return {name: "" if value == NULL else value for name, value in values.items()}
