"""Golden manifests: `python -m tests.unit.resources.golden` writes them anew; the diff is then for a person to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

GOLDEN = Path(__file__).parent / "golden"


def text(manifest: dict[str, Any]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=120, allow_unicode=True)


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text())
    return loaded


def main() -> None:
    from tests.unit.resources.samples import built

    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.yaml"):
        old.unlink()
    for name, manifest in built().items():
        assert manifest is not None, name
        (GOLDEN / f"{name}.yaml").write_text(text(manifest))


if __name__ == "__main__":
    main()
