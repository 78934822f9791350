"""Take out of a folder of installed packages what no pod of ours uses, then compile what is left.

Runs in the builder stages (`python3 slim.py FOLDER [FOLDER …]`), standard library only. A rule names a package, what
goes, and modules that must still import: a rule that takes too much fails the build, not a pod. Only the last FOLDER
is changed; those before it are on the path when the imports are tried.

Modules are compiled to unchecked hash-based .pyc files: the root file system of a pod is read-only, so nothing is
compiled there, and no source is looked at to see whether it is newer.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Rule:
    """What goes of one package. Patterns are relative to the package's folder; `keep` wins over `remove`."""

    package: str
    remove: tuple[str, ...]
    keep: frozenset[str] = field(default_factory=frozenset)  # names of direct children of a removed `folder/*`
    imports: tuple[str, ...] = ()


# Of any package: tests, and what only a compiler reads.
EVERYWHERE = (
    "**/tests",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.pxi",
    "**/*.h",
    "**/*.hpp",
    "**/*.c",
    "**/*.cc",
    "**/*.cpp",
    "**/*.a",
    "bin",
)

RULES = (
    Rule(
        "numpy",
        ("_core/include", "_core/lib", "doc"),
        imports=("numpy", "numpy.testing", "numpy.random", "numpy.linalg", "numpy.fft"),
    ),
    Rule(
        "scipy",
        ("**/*.f", "**/*.f90"),
        imports=("scipy.stats", "scipy.sparse", "scipy.optimize", "scipy.linalg", "scipy.special"),
    ),
    Rule(
        "sklearn",
        ("datasets/data", "datasets/descr", "datasets/images"),
        imports=(
            "sklearn.ensemble",
            "sklearn.linear_model",
            "sklearn.pipeline",
            "sklearn.metrics",
            "sklearn.impute",
            "sklearn.model_selection",
        ),
    ),
    Rule(
        # libarrow_substrait stays: every extension module is linked against it. The object store is read with boto3,
        # so pyarrow's own clients of S3, GCS, Azure and HDFS go; pyarrow.fs copes with their absence.
        "pyarrow",
        (
            "include",
            "includes",
            "src",
            "libarrow_flight.so*",
            "libarrow_python_flight.so*",
            "_flight.*",
            "flight.py",
            "libarrow_s3.so*",
            "_s3fs.*",
            "_gcsfs.*",
            "_azurefs.*",
            "_hdfs.*",
            "libgandiva.so*",
            "gandiva.*",
            "_pyarrow_cpp_tests.*",
            "_substrait.*",
            "substrait.py",
            "_orc.*",
            "orc.py",
            "_dataset_orc.*",
            "libarrow_python.so",  # copies of libarrow_python.so.N, which is the name that is linked against
            "libarrow_python.so.*.*",
            "libarrow_python_parquet_encryption.so",
            "libarrow_python_parquet_encryption.so.*.*",
        ),
        imports=("pyarrow", "pyarrow.parquet", "pyarrow.dataset", "pyarrow.compute", "pyarrow.csv", "pyarrow.fs"),
    ),
    Rule(
        # The API of every service of AWS; ours are S3, and STS for the identity of a workload.
        "botocore",
        ("data/*",),
        keep=frozenset(
            {"s3", "sts", "_retry.json", "endpoints.json", "partitions.json", "sdk-default-configuration.json"}
        ),
        imports=("botocore.session",),
    ),
    Rule("boto3", ("data/*", "examples"), keep=frozenset({"s3"}), imports=("boto3",)),
    Rule("pydantic", (), imports=("pydantic",)),
    Rule(
        # The calls of the blocking client; the asyncio one is what we use. Its package stays: kopf looks into it.
        "kubernetes",
        ("client/api/*_api.py",),
        keep=frozenset({"custom_objects_api.py"}),
        imports=("kubernetes", "kubernetes.aio.client", "kubernetes.aio.config", "kubernetes.aio.dynamic"),
    ),
    Rule("kopf", (), imports=("kopf",)),
    Rule("skops", (), imports=("skops.io",)),
    # Its test vectors, which are bigger than it; and what converts, quantizes and tunes models of transformers.
    Rule("onnx", ("backend/test",), imports=("onnx", "onnx.checker", "onnx.helper")),
    Rule(
        # libonnxruntime.so is for programs in C: the Python module has all of it inside.
        "onnxruntime",
        ("transformers", "quantization", "tools", "capi/libonnxruntime.so*"),
        imports=("onnxruntime",),
    ),
    Rule("grpc", (), imports=("grpc", "grpc.aio")),
    Rule("uvloop", (), imports=("uvloop",)),
    Rule("aiohttp", (), imports=("aiohttp",)),
    Rule("uvicorn", (), imports=("uvicorn",)),
    Rule("typer", (), imports=("typer",)),
)


def doomed(folder: Path) -> Iterator[Path]:
    """What the rules take out of a folder of packages; a path may come after one of its parents."""
    for pattern in EVERYWHERE:
        yield from folder.glob(pattern)
    for rule in RULES:
        package = folder / rule.package
        for pattern in rule.remove:
            yield from (path for path in package.glob(pattern) if path.name not in rule.keep)


def slim(folder: Path) -> int:
    """Take it out; the bytes that went."""
    gone = 0
    for path in list(doomed(folder)):  # the whole list first: a glob loses its way in folders that vanish
        if path.is_dir() and not path.is_symlink():
            gone += sum(inner.lstat().st_size for inner in path.rglob("*") if inner.is_file())
            shutil.rmtree(path)
        elif path.exists():
            gone += path.lstat().st_size
            path.unlink()
    return gone


def compile_all(folder: Path) -> bool:
    return bool(
        compileall.compile_dir(
            folder, quiet=1, workers=0, force=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
    )


def still_imports(folders: list[Path]) -> bool:
    """Whether the modules that the rules name import from these folders, each package's in one new interpreter."""
    path = os.pathsep.join(str(folder) for folder in reversed(folders))
    good = True
    for rule in RULES:
        if rule.imports and (folders[-1] / rule.package).is_dir():
            done = subprocess.run(
                [sys.executable, "-c", f"import {', '.join(rule.imports)}"],
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                check=False,
            )
            if done.returncode != 0:
                print(f"slim.py: {rule.package} does not import any more: take less out of it", file=sys.stderr)
                good = False
    return good


def main() -> int:
    folders = [Path(argument).absolute() for argument in sys.argv[1:]]
    if not folders or not all(folder.is_dir() for folder in folders):
        print("usage: slim.py FOLDER [FOLDER …]; each a folder of installed packages", file=sys.stderr)
        return 2
    gone = slim(folders[-1])
    compiled = compile_all(folders[-1])
    print(f"slim.py: {gone / 1e6:.0f} MB taken out of {folders[-1]}")
    return 0 if compiled and still_imports(folders) else 1


if __name__ == "__main__":
    sys.exit(main())
