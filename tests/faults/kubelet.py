"""What becomes of pods: nothing runs, a script says how each ends, in place of scheduler, kubelet and containers."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.faults.upstream import Json, Mirror, Upstream, UpstreamError
from truekeep.contract.decisions import told
from truekeep.contract.requests import KeepRequest

POD_IP = "127.0.0.1"
REQUEST = "TRUEKEEP_REQUEST"
TOO_SMALL = "64Mi"
NO_GOOD = "bad"  # what is in the annotation of a run whose model passes no gate
REQUESTS = 100
Look = Callable[[str], Json | None]  # policy's name -> what its monitor finds


class Kubelet:
    """Plays the nodes of the whole cluster. `looks` by namespace: what monitors find there."""

    def __init__(self, upstream: Upstream, mirror: Mirror) -> None:
        self._upstream = upstream
        self._pods: asyncio.Queue[Json] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._seen: set[str] = set()
        self.looks: dict[str, Json] = {}
        self.metrics_port = 0
        mirror.listeners.append(self._hear)

    async def __aenter__(self) -> Kubelet:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, POD_IP, 0)
        await site.start()
        assert site._server is not None
        self.metrics_port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._tasks = [asyncio.create_task(self._work(), name=f"kubelet-{number}") for number in range(4)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        """A hundred good requests, whatever time is asked for."""
        text = f'# TYPE truekeep_server_requests counter\ntruekeep_server_requests_total{{outcome="ok"}} {REQUESTS}\n'
        return web.Response(text=text)

    def _hear(self, plural: str, what: str, item: Json) -> None:
        uid = item["metadata"]["uid"]
        if plural == "pods" and what != "DELETED" and uid not in self._seen:
            self._seen.add(uid)
            self._pods.put_nowait(item)

    async def _work(self) -> None:
        while True:
            pod = await self._pods.get()
            about = pod["metadata"]
            try:
                status = self._outcome(pod)
                await self._upstream.patch("pods", about["namespace"], about["name"], {"status": status}, "/status")
            except UpstreamError:
                if "deletionTimestamp" not in about:  # else: it was gone before anything became of it
                    self._seen.discard(about["uid"])

    def _outcome(self, pod: Json) -> Json:
        container = pod["spec"]["containers"][0]
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if pod["metadata"]["labels"].get("app.kubernetes.io/component") == "server":
            return _server(container, stamp)
        request = next(each["value"] for each in container["env"] if each["name"] == REQUEST)
        message = self._message(pod["metadata"]["namespace"], json.loads(request))
        done = {"exitCode": 0, "reason": "Completed", "message": json.dumps(message), "startedAt": stamp}
        state = {"terminated": {**done, "finishedAt": stamp}}
        return {"phase": "Succeeded", "startTime": stamp, "containerStatuses": [_container(container, state, False)]}

    def _message(self, namespace: str, asked: Json) -> Json:
        """What a pod hands over."""
        if "candidate" in asked:
            seen = {"rows": 10, "requests": 2, "failed": 0}
            return {"candidate": asked["candidate"], "reason": "Rehearsed", "rehearsal": seen}
        if "decisions" in asked:
            kept = KeepRequest.model_validate(asked).decisions
            return {"told": told(kept), "reason": "Kept", "pages": 1}
        if "runUid" in asked:
            return _trained(asked)
        looked = {"policyUid": asked["policyUid"], "revision": asked["revision"], "reason": "Looked"}
        return {**looked, **self.looks.get(namespace, {})}


def _trained(asked: Json) -> Json:
    trigger = asked["trigger"]
    cause = f"{asked['trainingFingerprint']} {trigger['type']} {trigger.get('value', '')}"
    good = trigger.get("value") != NO_GOOD
    result: dict[str, Any] = {
        "runUid": asked["runUid"],
        "reason": "Succeeded" if good else "GatesFailed",
        "message": "as the script says",
        "trainingFingerprint": asked["trainingFingerprint"],
        "data": {"objects": 1, "rows": 1000},
        "metrics": [{"name": "roc_auc", "value": "0.7"}],
    }
    if good:
        digest = f"sha256:{hashlib.sha256(cause.encode()).hexdigest()}"
        result["artifact"] = {"digest": digest, "uri": f"s3://models/{digest[7:19]}", "sizeBytes": 1}
    return result


def _server(container: Json, stamp: str) -> Json:
    if container["resources"]["limits"].get("memory") == TOO_SMALL:
        ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": stamp, "finishedAt": stamp}
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}
        status = {**_container(container, waiting, False), "restartCount": 2, "lastState": {"terminated": ended}}
        return {"phase": "Running", "podIP": POD_IP, "startTime": stamp, "containerStatuses": [status]}
    return {
        "phase": "Running",
        "podIP": POD_IP,
        "startTime": stamp,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": stamp} for kind in ("Ready", "ContainersReady")
        ],
        "containerStatuses": [_container(container, {"running": {"startedAt": stamp}}, True)],
    }


def _container(container: Json, state: Json, ready: bool) -> Json:
    image = container["image"]
    return {
        "name": container["name"],
        "state": state,
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "image": image,
        "imageID": f"{image.partition('@')[0]}@sha256:{hashlib.sha256(image.encode()).hexdigest()}",
    }
