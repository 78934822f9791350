"""Trees of any library as one `TreeEnsemble` (ai.onnx.ml 5) in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from truekeep.features.compiled import ML_DOMAIN

if TYPE_CHECKING:
    from truekeep.trainer.onnx.nodes import Graph

_LEQ, _LESS, _EQUAL, _UNEQUAL, _MEMBER = 0, 1, 4, 5, 6  # modes of a tree's nodes
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
    modes: npt.NDArray[np.uint8] | None = None  # of each node, where they differ


@dataclass(frozen=True)
class Meaning:
    """What a feature of the trees is in the matrix: a number, or whether a column is null, or is this category."""

    kind: Literal["Number", "Null", "Category"]
    column: int
    value: float = np.nan  # a Number's for a null; the Category's code


def on_matrix(tree: Tree, meanings: Sequence[Meaning]) -> Tree:
    """The tree asking the matrix itself, instead of columns that were imputed and indicators that were made first:
    for a hundred categories that is a hundredth of the work."""
    meant = [meanings[feature] for feature in tree.feature.tolist()]
    kinds = np.array([one.kind for one in meant])
    values = np.array([one.value for one in meant])
    threshold = tree.threshold

    def left(value: Any) -> Any:
        return value < threshold if tree.strict else value <= threshold

    # Of a number: a null goes where its substitute goes, or where the tree sends nulls.
    numbers = kinds == "Number"
    missing_left = np.where(np.isnan(values), tree.missing_left, left(values))
    modes = np.where(numbers, _LESS if tree.strict else _LEQ, _LEQ)
    splits = threshold.copy()
    # Of an indicator: where 0 goes, and where 1 goes. Both to one side, for all that is or for none, if they agree.
    zero, one = left(0.0), left(1.0)
    flags = ~numbers
    splits[flags] = np.where(zero, np.inf, -np.inf)[flags]
    missing_left = np.where(flags, np.where(kinds == "Null", one, zero), missing_left)
    chosen = (kinds == "Category") & (zero != one)
    modes = np.where(chosen, np.where(zero, _UNEQUAL, _EQUAL), modes)
    splits[chosen] = values[chosen]
    return replace(
        tree,
        feature=np.array([one.column for one in meant], dtype=np.int64),
        threshold=splits,
        missing_left=missing_left.astype(np.bool_),
        modes=modes.astype(np.uint8),
    )


def ensemble(graph: Graph, trees: Sequence[Tree], name: str) -> str:
    """The sum of all trees, shape (rows, 1)."""
    if graph.meanings is not None:
        trees = [on_matrix(tree, graph.meanings) for tree in trees]
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
            plain = (_LESS if tree.strict else _LEQ) if tree.modes is None else int(tree.modes[node])
            modes.append(_MEMBER if wanted is not None else plain)
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
