"""Reads that several looks ask for in the same moment, as one.

What is asked for while nothing of its kind is being read in its namespace is read at once. What is asked for meanwhile
waits for that read to end, and is then read together: the more looks there are, the more each read answers, and one
look alone reads what it always did. Nothing is kept: every answer comes from a read that began after it was asked for.
A read that fails fails each look that asked for it, and no other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from truekeep.api.names import LABEL_DEPLOYMENT, LABEL_MODEL, LABEL_POLICY, LABEL_RUN
from truekeep.cluster.api import Api
from truekeep.cluster.errors import Refused
from truekeep.cluster.kinds import OWN, Kind

Json = dict[str, Any]
Items = list[Json]
Place = tuple[Kind, str | None]
MODEL_FIELD = "spec.modelRef.name"
VALUES = 50  # of a label in one request: its address must not become too long
# A whole namespace is read where it has at most so many objects for each one that is asked for, and never more than
# MANY: reading them apart is dearer then, and what is held at once stays small.
PER_NAME = 8
PER_MODEL = 32  # of those that name a Model, which has some ten runs
MANY = 500
SHARED_AT_ONCE = 2  # reads of whole namespaces: their answers are large
BY_LABEL = (LABEL_MODEL, LABEL_POLICY, LABEL_RUN, LABEL_DEPLOYMENT)


@dataclass(frozen=True)
class Named:
    """One object."""

    name: str


@dataclass(frozen=True)
class Naming:
    """Objects that name a Model in their spec."""

    model: str


@dataclass(frozen=True)
class Selected:
    """Objects by labels and a field selector."""

    labels: tuple[tuple[str, str], ...] = ()
    fields: str | None = None


Wanted = Named | Naming | Selected
Answers = dict[Wanted, Items | Exception]


@dataclass(frozen=True)
class There:
    """Objects of a namespace as they were read for one look, None where there is none: who writes need not read them
    again. `autoscalers`: all of the namespace's."""

    objects: Mapping[tuple[Kind, str], Json | None] = field(default_factory=dict)
    autoscalers: Sequence[Json] | None = None


NOT_READ = There()


@dataclass(eq=False)
class _Asked:
    """What one look waits for."""

    wanted: Wanted
    answer: asyncio.Future[Items] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Together:
    """Reads objects for looks, as the Api does. Answers are shared: nobody may change them."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._asked: defaultdict[Place, list[_Asked]] = defaultdict(list)
        self._readers: dict[Place, asyncio.Task[None]] = {}
        # How many objects there were at least: it says how to read, never what is there.
        self._sizes: dict[Place, int] = {}
        self._few = asyncio.Semaphore(SHARED_AT_ONCE)
        self._selects = True  # whether the API server can select by the Model that an object names

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """One object as it is now, or None."""
        found = await self._ask((kind, namespace), Named(name))
        return found[0] if found else None

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, fields: str | None = None
    ) -> Items:
        """All objects as they are now."""
        return await self._ask((kind, namespace), Selected(tuple(sorted((labels or {}).items())), fields))

    async def naming(self, kind: Kind, namespace: str, model: str) -> Items:
        """Objects that name a Model in their spec."""
        return await self._ask((kind, namespace), Naming(model))

    def each(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str] | None = None, fields: str | None = None
    ) -> AsyncIterator[Json]:
        """Those that are many, page by page: such a read is never shared."""
        return self._api.each(kind, namespace, labels, fields)

    @property
    def selects(self) -> bool:
        """Whether the API server could select by a field of an object of ours, as far as it is known."""
        return self._selects

    def cannot_select(self) -> None:
        """It can't: Kubernetes before 1.31."""
        self._selects = False

    async def _ask(self, place: Place, wanted: Wanted) -> Items:
        asked = _Asked(wanted)
        self._asked[place].append(asked)
        if place not in self._readers:
            self._readers[place] = asyncio.create_task(self._read(place))
        return await asked.answer

    async def _read(self, place: Place) -> None:
        """Until nobody waits: what was asked for so far, again and again."""
        try:
            while asked := self._asked.pop(place, None):
                await self._answer(place, asked)
        finally:
            del self._readers[place]
            for late in self._asked.pop(place, ()):  # only where the operator ends
                late.answer.cancel()

    async def _answer(self, place: Place, asked: Sequence[_Asked]) -> None:
        waiting = [each for each in asked if not each.answer.done()]  # others gave up
        wanted = list(dict.fromkeys(each.wanted for each in waiting))
        try:
            answers = await self._read_all(place, wanted)
        except asyncio.CancelledError:
            for each in waiting:
                each.answer.cancel()
            raise
        for each in waiting:
            if each.answer.done():
                continue
            found = answers[each.wanted]
            if isinstance(found, Exception):
                each.answer.set_exception(found)
            else:
                each.answer.set_result(found)

    async def _read_all(self, place: Place, wanted: Sequence[Wanted]) -> Answers:
        """Each of what is wanted, with what was found or why nothing was. Kinds of questions go side by side."""
        names = [each for each in wanted if isinstance(each, Named)]
        models = [each for each in wanted if isinstance(each, Naming)]
        selected = [each for each in wanted if isinstance(each, Selected)]
        parts: list[Awaitable[Answers]] = []
        if names:
            parts.append(self._whole_or_each(place, names, PER_NAME))
        if models:
            parts.append(self._whole_or_each(place, models, PER_MODEL))
        parts += [self._selected(place, group) for group in _groups(selected)]
        answers: Answers = {}
        for part in await asyncio.gather(*parts):
            answers |= part
        return answers

    async def _whole_or_each(self, place: Place, wanted: Sequence[Named | Naming], share: int) -> Answers:
        """A whole namespace where that is less work than each one by itself."""
        most = min(MANY, share * len(wanted))
        if len(wanted) > 1 and place[0].namespaced and self._sizes.get(place, 0) <= most:
            try:
                items = await self._whole(place, most)
            except Refused:  # it may get them and not list them
                self._sizes[place] = MANY + 1
                items = None
            except Exception as error:
                return dict.fromkeys(wanted, error)
            if items is not None:
                by_wanted: defaultdict[Wanted, Items] = defaultdict(list)
                for item in items:
                    by_wanted[Named(_name(item))].append(item)
                    by_wanted[Naming(_model(item))].append(item)
                return {each: by_wanted.get(each, []) for each in wanted}
        return await self._each_of(place, wanted)

    async def _whole(self, place: Place, most: int) -> Items | None:
        """All objects of a namespace, None where there are more."""
        found = []
        async with self._few:
            async for item in self._api.each(*place, page=most + 1):
                found.append(_lean(place[0], item))
                if len(found) > most:
                    break
        self._sizes[place] = len(found)
        return found if len(found) <= most else None

    async def _selected(self, place: Place, group: Sequence[Selected]) -> Answers:
        """Selections that differ in the value of one label, in one request."""
        if len(group) == 1:
            return await self._each_of(place, group)
        key = _differs(group)
        values = [dict(each.labels)[key] for each in group]
        labels: dict[str, str | Sequence[str]] = {**dict(group[0].labels), key: values}
        try:
            items = await self._api.list(*place, labels)
        except Exception as error:
            return dict.fromkeys(group, error)
        found: dict[str, Items] = {value: [] for value in values}
        for item in items:
            found[item["metadata"]["labels"][key]].append(item)
        return {each: found[value] for each, value in zip(group, values, strict=True)}

    async def _each_of(self, place: Place, wanted: Sequence[Wanted]) -> Answers:
        """Each by a request of its own."""
        found = await asyncio.gather(*(self._one(place, each) for each in wanted), return_exceptions=True)
        answers: Answers = {}
        for each, answer in zip(wanted, found, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            answers[each] = answer
        return answers

    async def _one(self, place: Place, wanted: Wanted) -> Items:
        kind, namespace = place
        match wanted:
            case Named(name):
                item = await self._api.get(kind, namespace or "", name)
                return [item] if item is not None else []
            case Naming(model):
                return [_lean(kind, item) for item in await self._naming(kind, namespace, model)]
            case Selected(labels, fields):
                return await self._api.list(kind, namespace, dict(labels), fields)

    async def _naming(self, kind: Kind, namespace: str | None, model: str) -> Items:
        """Kubernetes before 1.31 can't select by a field of ours: then all are read, and those that do are picked."""
        if self._selects:
            with suppress(Refused):
                return await self._api.list(kind, namespace, fields=f"{MODEL_FIELD}={model}")
            self._selects = False
        return [item async for item in self._api.each(kind, namespace) if _model(item) == model]


def _lean(kind: Kind, item: Json) -> Json:
    """An object of ours without the names of the fields that each writer has: they are half of it, and say no more than
    who wrote."""
    if kind in OWN:
        for each in (item.get("metadata") or {}).get("managedFields") or []:
            each.pop("fieldsV1", None)
    return item


def _groups(selected: Iterable[Selected]) -> list[list[Selected]]:
    """Those that can be read together: they differ in the value of one label, and a request bears so many."""
    groups: defaultdict[object, list[Selected]] = defaultdict(list)
    for each in selected:
        key = next((name for name in BY_LABEL if name in dict(each.labels)), None)
        if key is None or each.fields:
            groups[each].append(each)
        else:
            groups[(key, tuple(pair for pair in each.labels if pair[0] != key))].append(each)
    return [group[start : start + VALUES] for group in groups.values() for start in range(0, len(group), VALUES)]


def _differs(group: Sequence[Selected]) -> str:
    """The label by which a group is told apart."""
    return next(name for name in BY_LABEL if name in dict(group[0].labels))


def _name(item: Json) -> str:
    return str((item.get("metadata") or {}).get("name", ""))


def _model(item: Json) -> str:
    reference = (item.get("spec") or {}).get("modelRef") or {}
    return str(reference.get("name", "")) if isinstance(reference, dict) else ""
