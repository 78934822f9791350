"""Protocol buffer messages from a table instead of generated code.

Generated modules are bound to a version of protobuf and register their names for the whole process, where they collide
with any other library that brings the same protocol. Here each table has a pool of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Table: TypeAlias = Mapping[str, Mapping[str, tuple[int, str]]]

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_FIELD, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


def messages(package: str, table: Table) -> dict[str, Any]:
    """Message classes by name. A table's key is a message, `Outer.Inner` a nested one (after its outer); its fields are
    (number, type). Types: a scalar, a message's name from the package on, `*type` repeated, `map type` from text to it,
    `name|type` a member of the oneof `name`."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in table.items():
        outer, _, short = name.rpartition(".")
        message = made[outer].nested_type.add(name=short) if outer else file.message_type.add(name=short)
        made[name] = message
        for field, (number, kind) in fields.items():
            _add(message, (f".{package}.", name), field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call, unused-ignore]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in table}


def _add(message: Any, place: tuple[str, str], name: str, number: int, kind: str) -> None:
    package, owner = place
    group, _, kind = kind.rpartition("|")
    field = message.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL)
    if group:
        found = [index for index, one in enumerate(message.oneof_decl) if one.name == group]
        if not found:
            message.oneof_decl.add(name=group)
        field.oneof_index = found[0] if found else len(message.oneof_decl) - 1
    if kind.startswith("map "):
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add(entry, (package, ""), "key", 1, "string")
        _add(entry, (package, ""), "value", 2, kind.removeprefix("map "))
        field.label = _FIELD.LABEL_REPEATED
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f"{package}{owner}.{entry.name}"
        return
    if kind.startswith("*"):
        field.label = _FIELD.LABEL_REPEATED
        kind = kind[1:]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, package + kind
