"""kopf as a source of events, and nothing else: every event of our kinds and of their children puts keys on the queue.

Only `on.event` is used: kopf's other handlers write annotations and finalizers into objects that Git owns, and react
to differences instead of to what is there. kopf runs in a thread with an event loop of its own, because it takes all
tasks of its loop down when a watch breaks for good; then it is started again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from truekeep.api.common import GROUP, VERSION
from truekeep.api.names import MANAGED_BY
from truekeep.controller.keys import Relations, ended, key_of, keys_of_approval, keys_of_child
from truekeep.controller.queue import Cause, Key

OWN = {"models": "Model", "trainingruns": "TrainingRun", "driftpolicies": "DriftPolicy"}
APPROVALS = "modelapprovals"
CHILDREN = (
    ("batch", "v1", "jobs"),
    ("batch", "v1", "cronjobs"),
    ("apps", "v1", "deployments"),
    ("", "v1", "services"),
    ("", "v1", "pods"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
)
# Not every cluster has them: they are watched once somebody could read them.
ROUTES = ("gateway.networking.k8s.io", "v1", "httproutes")
# Others write the status of these, an autoscaler's every 15 s, and nobody here is in a hurry for it.
STATUS_OF_OTHERS = frozenset({"poddisruptionbudgets", "horizontalpodautoscalers"})
# A watch is renewed by the server after this time at the latest, and given up by the client a little later.
SERVER_TIMEOUT_SECONDS = 270
CLIENT_TIMEOUT_SECONDS = 300
CONNECT_TIMEOUT_SECONDS = 10
RESTART_SECONDS = 5.0
logger = logging.getLogger(__name__)
# kopf keeps an object until its worker has waited this long in vain: thousands that are listed at once must go soon.
IDLE_SECONDS = 0.3
LIST_CHUNK = 100
Wake = Callable[[Sequence[Key], Cause], None]


class Watch:
    """Events of the cluster, as keys.

    `wake` is called in kopf's thread, with keys and why to look at them. Objects that are listed, at the start and each
    time that a watch is renewed, are told of where their version is new, and then nobody knows since when it is: that
    is routine."""

    def __init__(self, wake: Wake, namespaces: Sequence[str] = ()) -> None:
        self._wake = wake
        self._namespaces = list(namespaces)
        self._stop = threading.Event()
        self._turn = threading.Event()  # kopf is to end, for good or to begin anew
        self._routes = False  # whether HTTPRoutes are watched
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.versions: dict[Key, str] = {}  # of our kinds: the version that was seen last
        self._wanted: dict[Key, int] = {}  # of those: the hash of what people say in them
        self._known: dict[str, str] = {}  # of children, by UID: the same, or what is not status
        self.started = False
        self.events = 0
        self.restarts = 0
        self._told: dict[str, float] = {}  # when each watch last told something, by time.monotonic

    def start(self) -> None:
        """Start watching."""
        self.started = True
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, without waiting for the end."""
        self._stop.set()
        self._turn.set()

    def routes_are_served(self) -> None:
        """Somebody read HTTPRoutes, so they can be watched. kopf looks once which kinds there are: it begins anew, and
        what it lists again as it was wakes nobody."""
        if not self._routes:
            self._routes = True
            self._turn.set()

    def ready(self) -> bool:
        """Whether the watches were set up."""
        return self._ready.is_set() and self._thread.is_alive()

    def alive(self) -> bool:
        """Whether anybody watches."""
        return self._thread.is_alive()

    def ages(self) -> dict[str, float]:
        """Seconds since each watch last told something, by the plural of its kind; one that never did is left out. It
        is renewed, and with that lists what there is, every few minutes."""
        now = time.monotonic()
        return {plural: now - told for plural, told in self._told.copy().items()}

    def _run(self) -> None:
        while True:
            self._turn.clear()
            if self._stop.is_set():
                return
            try:
                asyncio.run(self._operator())
            except Exception:
                logger.exception("the watches broke and are set up again")
                self._ready.clear()
                self._known.clear()  # of what went meanwhile nobody will tell
                self._routes = False  # the kind may be what went
                self.restarts += 1
                self._stop.wait(RESTART_SECONDS)

    async def _operator(self) -> None:
        """Until `_turn` is set, or a watch breaks for good."""
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=settings(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._turn,
                ready_flag=self._ready,
            )
            if not self._turn.is_set():
                raise RuntimeError("kopf ended, and nobody asked for it")
        finally:
            self._turn.set()  # a thread of kopf's waits for it, and asyncio.run for that thread

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        relations = Relations()

        @kopf.on.login(registry=registry)
        def login(**arguments: Any) -> kopf.ConnectionInfo | None:
            return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)

        for plural, kind in OWN.items():

            @kopf.on.event(GROUP, VERSION, plural, registry=registry, id=plural, param=kind)
            async def of_ours(event: Any, resource: Any, param: Any = None, **_: Any) -> None:
                item, gone, listed = event["object"], event["type"] == "DELETED", event["type"] is None
                self._heard(resource)
                news, asked = self._remember(param, item, gone)
                keys = relations.keys(param, item, gone)
                # A run that ended and is only listed was looked at when it did; what its Jobs need, a resync finds.
                if keys and not (listed and (not news or ended(param, item))):
                    # Who watches a Model that changed has time, where many changed.
                    mine = [each for each in keys if each.kind != "DriftPolicy" or param == "DriftPolicy"]
                    self._wake(mine, Cause.ROUTINE if listed else Cause.WANTED if asked else Cause.HAPPENED)
                    if len(mine) < len(keys):
                        self._wake([each for each in keys if each not in mine], Cause.ROUTINE)

        @kopf.on.event(GROUP, VERSION, APPROVALS, registry=registry, id=APPROVALS)
        async def of_an_approval(event: Any, resource: Any, **_: Any) -> None:
            self._heard(resource)
            if self._is_news(event):
                self._wake(keys_of_approval(event["object"]), Cause.ROUTINE if event["type"] is None else Cause.WANTED)

        for group, version, plural in (*CHILDREN, ROUTES) if self._routes else CHILDREN:

            @kopf.on.event(group, version, plural, registry=registry, id=plural)
            async def of_a_child(event: Any, resource: Any, **_: Any) -> None:
                self._heard(resource)
                if self._is_news(event, resource.plural in STATUS_OF_OTHERS):
                    self._wake(
                        keys_of_child(event["object"]), Cause.ROUTINE if event["type"] is None else Cause.HAPPENED
                    )

        return registry

    def _heard(self, resource: Any) -> None:
        self.events += 1
        self._told[resource.plural] = time.monotonic()

    def _remember(self, kind: str, item: Mapping[str, Any], gone: bool) -> tuple[bool, bool]:
        """Whether this version was not told of before, and whether somebody asks for something new in it: all that we
        write into an object of ours is its status."""
        key, version = key_of(kind, item), str(item["metadata"].get("resourceVersion"))
        if key is None:
            return False, False
        if gone:
            self._wanted.pop(key, None)
            return self.versions.pop(key, None) != version, True
        wanted = _wanted(item)
        news, asked = self.versions.get(key) != version, self._wanted.get(key) != wanted
        self.versions[key], self._wanted[key] = version, wanted
        return news, asked

    def _is_news(self, event: Mapping[str, Any], but_status: bool = False) -> bool:
        """Whether this version of a child was not told of before; `but_status`: or has another status alone."""
        item = event["object"]
        about = item.get("metadata") or {}
        uid, version = str(about.get("uid")), str(about.get("resourceVersion"))
        if event["type"] == "DELETED":
            self._known.pop(uid, None)
            return True
        if but_status:
            ours = [about.get(name) for name in ("labels", "annotations", "ownerReferences", "deletionTimestamp")]
            version = hashlib.sha256(json.dumps([*ours, item.get("spec")], sort_keys=True).encode()).hexdigest()
        news = self._known.get(uid) != version
        self._known[uid] = version
        return news or (event["type"] is not None and not but_status)


def _wanted(item: Mapping[str, Any]) -> int:
    """A hash of what people say in an object: its spec, by generation, its annotations, and that it is to go."""
    about = item["metadata"]
    return hash(
        (about.get("generation"), about.get("deletionTimestamp"), *sorted((about.get("annotations") or {}).items()))
    )


class NothingCompared(kopf.DiffBaseStorage):
    """No handler asks what changed in an object, so none is copied to be compared."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        """Nothing."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nowhere."""


class NothingKept(kopf.ProgressStorage):
    """No handler has a progress."""

    def fetch(self, *, key: Any, body: kopf.Body) -> Any:
        """Nothing."""
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nowhere."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Nothing is there."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Nothing is there."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """As it is."""
        return essence


def settings() -> kopf.OperatorSettings:
    """kopf writes nothing: no peering, no events, no progress, no finalizer; and no watch may hang for ever."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.peering.standalone = True
    result.scanning.disabled = True
    result.persistence.diffbase_storage = NothingCompared()
    result.persistence.progress_storage = NothingKept()
    result.process.ultimate_exiting_timeout = None
    result.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    result.watching.client_timeout = CLIENT_TIMEOUT_SECONDS
    result.watching.connect_timeout = CONNECT_TIMEOUT_SECONDS
    result.watching.chunk_size = LIST_CHUNK
    result.queueing.idle_timeout = IDLE_SECONDS
    result.networking.request_timeout = 30
    result.networking.connect_timeout = CONNECT_TIMEOUT_SECONDS
    selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
    for child in (*CHILDREN, ROUTES):
        result.watching.label_selectors[child] = selector
    return result
