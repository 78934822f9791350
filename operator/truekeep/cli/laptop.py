"""What the commands that need no cluster share: reading a profile, a policy and Parquet files, and refusing them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import typer
import yaml
from pydantic import ValidationError

from truekeep.api.driftpolicy import DriftPolicySpec
from truekeep.monitor.judge import Settings, settings_of
from truekeep.profiling.schema import Profile
from truekeep.profiling.tables import ParquetTable, TableError

EXIT_NO_DRIFT = 0
EXIT_DRIFT = 1
EXIT_INPUT = 2
CAPTURED_PROBABILITY = "truekeep.probability"
POLICY_BYTES = 1 << 20


class InputError(ValueError):
    """Something that was given can't be used; the text names it, why, and what to do."""


class AsKubectl(yaml.SafeLoader):
    """YAML as kubectl reads it: what looks like a time stays text."""


AsKubectl.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file. InputError where it can't be read."""
    try:
        text = path.read_text(encoding="utf-8")
        return [one for one in yaml.load_all(text, AsKubectl) if one is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: can't be read: {' '.join(str(error).split())}") from error


def check_folder(out: Path, mark: str, whose: str) -> None:
    """Whether --out may be written into: new, empty, or with the file `mark` of what was there before. InputError."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is no folder; name one that is new or empty")
    if out.is_dir() and any(out.iterdir()) and not (out / mark).is_file():
        raise InputError(f"--out {out}: holds other files; name a folder that is new, empty, or {whose}")


def emptied(out: Path) -> None:
    """Make the folder, without the files that were there before."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        if old.is_file():
            old.unlink()


def refuse(error: Exception) -> NoReturn:
    """Say what is wrong and end with the code for wrong input."""
    typer.echo(f"truekeep: {error}", err=True)
    raise typer.Exit(EXIT_INPUT)


def table(path: Path) -> ParquetTable:
    """A Parquet file. InputError where it is none."""
    try:
        return ParquetTable(path)
    except TableError as error:
        raise InputError(str(error)) from error


def read_profile(path: Path) -> Profile:
    """A profile that `truekeep profile` or a training wrote. InputError where it is none."""
    try:
        return Profile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; make one with truekeep profile") from error
    except ValidationError as error:
        raise InputError(f"{path}: is no profile: {_first(error)}; make one with truekeep profile") from error


def read_policy(path: Path | None) -> DriftPolicySpec | None:
    """The one DriftPolicy of a YAML file, other objects beside it are passed over. InputError where there is none."""
    if path is None:
        return None
    try:
        text = path.read_bytes()
        if len(text) > POLICY_BYTES:
            raise InputError(f"{path}: is larger than {POLICY_BYTES:,} bytes; give the DriftPolicy's own file")
        documents = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give a file with a DriftPolicy") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no YAML: {' '.join(str(error).split())[:200]}") from error
    policies = [document for document in documents if document.get("kind") == "DriftPolicy"]
    if len(policies) != 1:
        raise InputError(f"{path}: has {len(policies)} objects of kind DriftPolicy; give a file with one")
    raw = policies[0].get("spec")
    try:
        spec = DriftPolicySpec.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{path}: spec: {_first(error)}") from error
    if unknown := _unknown(raw, spec.model_dump(mode="json", by_alias=True), "spec"):
        raise InputError(f"{path}: {unknown} is no field of a DriftPolicy; see docs/reference.md")
    return spec


def settings(spec: DriftPolicySpec | None, dropped: frozenset[str] = frozenset()) -> Settings:
    """What counts as a breach; the defaults where there is no policy. `dropped`: columns that are not compared."""
    if spec is None:
        return Settings(dropped=dropped)
    return settings_of(spec.data, spec.window.min_rows, dropped)


def beyond_a_file(spec: DriftPolicySpec | None) -> str:
    """What of a policy can't be judged on one table without times, labels and neighbours, in words; "" for nothing."""
    if spec is None:
        return ""
    parts = {
        "data.reference SameHoursOfWeek": spec.data.reference != "Training",
        "data.together": spec.data.together is not None,
        "blackouts": bool(spec.blackouts),
        "performance": spec.performance is not None,
    }
    return ", ".join(name for name, there in parts.items() if there)


def write(text: str, path: Path | None) -> None:
    """To a file, or to standard output. InputError where the file can't be written."""
    if path is None or str(path) == "-":
        typer.echo(text, nl=not text.endswith("\n"))
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give a file that can be written") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'][:6]) or 'the whole'}: {first['msg']}"


def _unknown(raw: Any, known: Any, at: str) -> str | None:
    """The first field that the schema does not have: a misspelt limit must not be a limit that is not kept."""
    if isinstance(raw, Mapping) and isinstance(known, Mapping):
        for key, value in raw.items():
            if key not in known:
                return f"{at}.{key}"
            if found := _unknown(value, known[key], f"{at}.{key}"):
                return found
    if isinstance(raw, list) and isinstance(known, list):
        for place, (mine, theirs) in enumerate(zip(raw, known, strict=False)):
            if found := _unknown(mine, theirs, f"{at}[{place}]"):
                return found
    return None


def moment(option: str, text: str | None) -> datetime | None:
    """A time or a day, in UTC. InputError."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{option} {text}: is no time; examples: 2026-11-23, 2026-11-23T12:30:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
