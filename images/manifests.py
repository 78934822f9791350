"""The manifests as one file, and what is derived of them: `python -m images render|derive`.

kustomize, as kubectl brings it, is the only renderer; what is derived is checked by a test to be current."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from images.errors import ImagesError
from images.places import IMAGES, REPOSITORY

DIST = Path("dist")  # below the repository, and not in Git: a release attaches what is in it
OPERATOR = "truekeep/operator"
DERIVED = "# Derived from manifests/operator/rbac.yaml by `make manifests`.\n"
OF_A_NAMESPACE = "truekeep-operator-of-truekeep-system"
INSTALLED = tuple(image for image in IMAGES if image.name in {"operator", "trainer", "server", "monitor"})


def kubectl() -> str:
    """A kubectl: the machine's, else the one that the tests' cluster is made of."""
    found = shutil.which("kubectl")
    if found:
        return found
    from tests.cluster import fetch_binary

    return str(fetch_binary("kubectl"))


def rendered(folder: Path) -> str:
    """What `kubectl kustomize` makes of a folder. ImagesError with its words where it can't."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImagesError(f"{folder} can't be rendered: {done.stderr.strip()}")
    return "---\n".join(_without_namespace(document) for document in done.stdout.split("---\n"))


def _without_namespace(document: str) -> str:
    """kustomize puts a namespace on admission policies, because it does not know that they are the whole cluster's."""
    if "\nkind: ValidatingAdmissionPolicy" not in document:
        return document
    return document.replace("\n  namespace: truekeep-system\n", "\n", 1)


def overlay(base: str, names: Mapping[str, str], pull_secret: str = "") -> str:
    """A kustomization of a base with these images, by variable, in place of the released ones, pulled with a Secret of
    that name, in the operator's namespace and in each Model's, where there is one."""
    operator = names["TRUEKEEP_OPERATOR_IMAGE"]
    name, _, digest = operator.partition("@")
    if digest:
        pinned = {"newName": name, "digest": digest}
    else:
        name, _, tag = operator.rpartition(":")
        pinned = {"newName": name, "newTag": tag}
    literals = [f"{each.variable}={names[each.variable]}" for each in INSTALLED if each.name != "operator"]
    patches = []
    if pull_secret:
        literals.append(f"TRUEKEEP_IMAGE_PULL_SECRETS={pull_secret}")
        add = {"op": "add", "path": "/spec/template/spec/imagePullSecrets", "value": [{"name": pull_secret}]}
        target = {"kind": "Deployment", "name": "truekeep-operator"}
        patches.append({"target": target, "patch": yaml.safe_dump([add])})
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [base],
        "images": [{"name": OPERATOR, **pinned}],
        "configMapGenerator": [
            {"name": "truekeep-images", "namespace": "truekeep-system", "behavior": "merge", "literals": literals}
        ],
        **({"patches": patches} if patches else {}),
    }
    return yaml.safe_dump(document, sort_keys=False)


def render(repository: Path = REPOSITORY) -> list[Path]:
    """Write dist/truekeep.yaml (all) and dist/truekeep-crds.yaml (the kinds alone).

    The images are those that `make publish` pushed last, where it did; else the released ones."""
    target = repository / DIST
    target.mkdir(exist_ok=True)
    published = target / "install"
    whole = published if (published / "kustomization.yaml").exists() else repository / "manifests" / "default"
    files = {"truekeep.yaml": whole, "truekeep-crds.yaml": repository / "manifests" / "crds"}
    for name, folder in files.items():
        _replace(target / name, rendered(folder))
    return [target / name for name in files]


def watched_role(repository: Path = REPOSITORY) -> str:
    """Of the operator's ClusterRole and its binding, what is needed in one namespace, as a Role and a RoleBinding."""
    text = (repository / "manifests" / "operator" / "rbac.yaml").read_text()
    wanted = ("ClusterRole", "ClusterRoleBinding")
    made: list[dict[str, Any]] = []
    for document in yaml.safe_load_all(text):
        if document["kind"] not in wanted or document["metadata"]["name"] != "truekeep-operator":
            continue
        document["kind"] = document["kind"].removeprefix("Cluster")
        document["metadata"]["name"] = OF_A_NAMESPACE
        if "rules" in document:
            document["rules"] = [rule for rule in document["rules"] if "nodes" not in rule["resources"]]
        else:
            document["roleRef"] |= {"kind": "Role", "name": OF_A_NAMESPACE}
        made.append(document)
    if len(made) != len(wanted):
        raise ImagesError(f"manifests/operator/rbac.yaml: {' and '.join(wanted)} truekeep-operator are looked for")
    return DERIVED + yaml.safe_dump_all(made, sort_keys=False)


def derive(repository: Path = REPOSITORY) -> list[Path]:
    """Write what is derived of the manifests; the files."""
    file = repository / "manifests" / "namespaced" / "watched" / "role.yaml"
    _replace(file, watched_role(repository))
    return [file]


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(file)
