"""Trees of any library as one `TreeEnsemble` (ai.onnx.ml 5) in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.features.compiled import ML_DOMAIN
from truekeep.trainer.onnx_nodes import Graph

_LEQ, _LESS, _MEMBER = 0, 1, 6  # modes of a tree's nodes
_SUM, _NO_TRANSFORM = 1, 0


@dataclass(frozen=True)
class Tree:
    """One tree as arrays over its nodes. `members`: for a node that asks for a set of categories, the set."""

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    leaf: npt.NDArray[np.bool_]
    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    missing_left: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    members: Mapping[int, Sequence[int]] = field(default_factory=dict)
    strict: bool = False  # left is what is less than the threshold, not what is equal to it


def ensemble(graph: Graph, trees: Sequence[Tree], name: str) -> str:
    """The sum of all trees, shape (rows, 1)."""
    features: list[int] = []
    splits: list[float] = []
    modes: list[int] = []
    missing: list[int] = []
    branches: dict[str, list[int]] = {"true": [], "false": []}
    ends: dict[str, list[int]] = {"true": [], "false": []}
    weights: list[float] = []
    members: list[float] = []
    roots: list[int] = []
    for tree in trees:
        inner = np.flatnonzero(~tree.leaf)
        start = len(features)
        roots.append(start)
        if not len(inner):  # a leaf alone: both ways lead to it
            features.append(0)
            splits.append(0.0)
            modes.append(_LEQ)
            missing.append(0)
            for side in ("true", "false"):
                branches[side].append(len(weights))
                ends[side].append(1)
            weights.append(float(tree.value[0]))
            continue
        number = np.cumsum(~tree.leaf) - 1 + start
        leaf_number = np.cumsum(tree.leaf) - 1 + len(weights)
        weights += tree.value[tree.leaf].tolist()
        features += tree.feature[inner].tolist()
        missing += tree.missing_left[inner].astype(np.int64).tolist()
        for side, child in (("true", tree.left[inner]), ("false", tree.right[inner])):
            branches[side] += np.where(tree.leaf[child], leaf_number[child], number[child]).tolist()
            ends[side] += tree.leaf[child].astype(np.int64).tolist()
        for node in inner.tolist():
            wanted = tree.members.get(node)
            modes.append(_MEMBER if wanted is not None else _LESS if tree.strict else _LEQ)
            splits.append(float(tree.threshold[node]) if wanted is None else 0.0)
            if wanted is not None:
                members += [*map(float, wanted), float("nan")]
    return graph.node(
        "TreeEnsemble",
        [name],
        domain=ML_DOMAIN,
        n_targets=1,
        aggregate_function=_SUM,
        post_transform=_NO_TRANSFORM,
        tree_roots=roots,
        nodes_featureids=features,
        nodes_splits=_attribute("nodes_splits", np.array(splits, dtype=np.float64)),
        nodes_modes=_attribute("nodes_modes", np.array(modes, dtype=np.uint8)),
        nodes_missing_value_tracks_true=missing,
        nodes_truenodeids=branches["true"],
        nodes_trueleafs=ends["true"],
        nodes_falsenodeids=branches["false"],
        nodes_falseleafs=ends["false"],
        leaf_targetids=[0] * len(weights),
        leaf_weights=_attribute("leaf_weights", np.array(weights, dtype=np.float64)),
        **({"membership_values": _attribute("members", np.array(members, dtype=np.float64))} if members else {}),
    )


def _attribute(name: str, values: npt.NDArray[Any]) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)


def single_precision(graph: Graph, name: str) -> str:
    """As scikit-learn's own trees see it: rounded to float32, then compared with double thresholds."""
    from onnx import TensorProto

    return graph.double(graph.node("Cast", [name], to=TensorProto.FLOAT))


def plain_tree(member: Any, values: npt.NDArray[Any]) -> Tree:
    """A `sklearn.tree._tree.Tree` with these values, shape (nodes,)."""
    tree = member.tree_
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    return Tree(
        left=np.asarray(tree.children_left, dtype=np.int64),
        right=np.asarray(tree.children_right, dtype=np.int64),
        leaf=np.asarray(tree.children_left == -1),
        feature=np.asarray(tree.feature, dtype=np.int64),
        threshold=np.asarray(tree.threshold, dtype=np.float64),
        missing_left=np.asarray(missing, dtype=np.bool_),
        value=np.asarray(values, dtype=np.float64),
    )
