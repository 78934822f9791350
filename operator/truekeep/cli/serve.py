"""`truekeep serve`: an artifact answers on this machine, by the code that serves it in a cluster."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from truekeep.cli.laptop import InputError, refuse

if TYPE_CHECKING:
    from truekeep.contract.artifact import Signature

LOCAL = "127.0.0.1"


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An artifact, as truekeep import wrote it.")],
    *,
    name: Annotated[str, typer.Option(help="The model's name in its URL.")] = "model",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTP; 0 takes a free one.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of gRPC; 0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 answers other machines too.")] = LOCAL,
) -> None:
    """Serve an artifact over the Open Inference Protocol, HTTP and gRPC, until Ctrl-C.

    The files are checked against their manifest, and the model must answer its recorded examples first. Codes: 0,
    stopped; 2, the artifact or the port can't be used."""
    os.environ.update(
        TRUEKEEP_SERVER_HOST=host,
        TRUEKEEP_SERVER_PORT=str(port),
        TRUEKEEP_SERVER_GRPC_PORT=str(grpc_port),
        TRUEKEEP_TERMINATION_LOG=os.devnull,
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import uvloop

        from truekeep.server import logs
        from truekeep.server.limits import from_environment
        from truekeep.server.load import ModelInvalidError
        from truekeep.server.local import LocalProcess
    except ModuleNotFoundError as error:
        refuse(InputError(f"the package {error.name} is missing; install truekeep[cli,server]"))
    logs.configure(model=name)

    def ready(bound: int, signature: Signature) -> None:
        typer.echo(welcome(name, f"http://{host if host != '0.0.0.0' else 'localhost'}:{bound}", signature))

    try:
        # Nobody stands in front of it who would send newcomers: Ctrl-C ends it when those under way are answered.
        limits = dataclasses.replace(from_environment(), drain_linger_seconds=0.0, drain_seconds=2.0)
        process = LocalProcess(name, folder, limits, ready)
        code = uvloop.run(process.run())
    except (ModelInvalidError, ValueError) as error:
        refuse(error)
    except OSError as error:
        refuse(InputError(f"--port {port}: {error.strerror or error}; give another port, or 0 for a free one"))
    except RuntimeError as error:  # gRPC's
        refuse(InputError(f"--grpc-port {grpc_port}: {error}; give another port, or 0 for a free one"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2 if code else 0)  # no thread of a library may hold up the end


def welcome(name: str, url: str, signature: Signature) -> str:
    """Where it answers, and a request that it answers."""
    inputs = signature.examples[0].inputs
    body = {
        "inputs": [
            {
                "name": one.name,
                "shape": [1],
                "datatype": "FP64" if one.type == "Number" else "BYTES",
                "data": [inputs.get(one.name)],
            }
            for one in signature.features
        ]
    }
    text = shlex.quote(json.dumps(body, ensure_ascii=False))
    return (
        f"{name} answers at {url}/v2/models/{name}/infer, its page is {url}/docs. Stop it with Ctrl-C. Try\n\n"
        f"curl -s {url}/v2/models/{name}/infer -H 'content-type: application/json' -d {text}\n"
    )
