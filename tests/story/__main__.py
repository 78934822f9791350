"""`python -m tests.story`: tell the story on the cluster that `make up` made."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

import httpx
import urllib3
from kubernetes.client import ApiException

from tests.cluster import ClusterError
from tests.story.kube import KubectlError, NotInTime
from tests.story.narrator import Narrator
from tests.story.stage import Stage, StoryError, own_cluster
from tests.story.steps import STEPS
from tests.story.trouble import tell_trouble
from truekeep.storage.errors import StoreError

NAMESPACE = "truekeep-demo"
GONE_WRONG = (
    StoryError,
    NotInTime,
    KubectlError,
    StoreError,
    ApiException,
    httpx.HTTPError,
    urllib3.exceptions.HTTPError,
    subprocess.SubprocessError,
    OSError,
    KeyError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.story", description=__doc__)
    parser.add_argument("--namespace", default=NAMESPACE, help=f"deleted and made anew; default {NAMESPACE}")
    namespace = parser.parse_args(arguments).namespace
    tell = Narrator()
    try:
        stage = Stage(own_cluster(), namespace, tell)
    except (ClusterError, FileNotFoundError) as error:
        tell.bad(str(error))
        return 2
    with stage:
        for number, step in enumerate(STEPS, start=1):
            tell.chapter(number, len(STEPS), step.title)
            try:
                step.act(stage)
            except GONE_WRONG as error:
                tell.bad(f"The story stops in step {number}, {step.title!r}: {error}")
                tell_trouble(stage.kube, namespace, tell)
                return 1
            except KeyboardInterrupt:
                tell.bad(f"stopped in step {number}; everything is left as it is in namespace {namespace}")
                return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
