"""Shapley values of a sum of trees, exactly, by walking the trees instead of asking the model for all coalitions.

Interventional TreeSHAP (Lundberg et al. 2020, "From local explanations to global understanding", algorithm 3): for the
row x and one background row z, a coalition's answer is found by going down each tree and taking, at a node that asks
for a feature, x's way or z's. Where both go the same way, nothing is decided; else that feature is from then on x's on
the one way and z's on the other. An end that was reached with a features of x and b of z adds
(a-1)! b! / (a+b)! of its value to each of the a, and takes a! (b-1)! / (a+b)! from each of the b.

The trees are those of the `TreeEnsemble` that `trainer.onnx_trees` writes. What prepares their input may be anything
that makes each of its columns from one feature alone; that is seen by trying, not by reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from truekeep.explain.shapley import Floats, Values, coalition_weights
from truekeep.features import compiled
from truekeep.features.wire import messages

MOST_FEATURES = 62  # a set of them is the bits of an integer
MOST_PATHS = 4_000_000  # that are walked at a time
AFFINE = 1e-9  # how far the margin may be from a line of the trees' sum

_LEQ, _LESS, _GREATER_EQUAL, _GREATER, _EQUAL, _UNEQUAL, _MEMBER = range(7)
_NUMPY = {2: np.uint8, 7: np.int64, 11: np.float64}  # of TensorProto.DataType
_TABLE = {
    "Tensor": {"data_type": (2, "int32"), "double_data": (10, "*double"), "raw_data": (9, "bytes")},
    "Attribute": {"name": (1, "string"), "i": (3, "int64"), "t": (5, "Tensor"), "ints": (8, "*int64")},
    "Node": {
        "input": (1, "*string"), "output": (2, "*string"), "op_type": (4, "string"), "attribute": (5, "*Attribute"),
    },
    "ValueInfo": {"name": (1, "string")},
    "Graph": {"node": (1, "*Node"), "output": (12, "*ValueInfo")},
    "Model": {"graph": (7, "Graph")},
}  # fmt: skip


class NotTreesError(Exception):
    """The model is no sum of trees, or none that is walked here. The text says why."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of all trees. `true` and `false`: where they lead to, below 0 for the end ~number."""

    feature: npt.NDArray[np.int64]
    split: Floats
    mode: npt.NDArray[np.int64]
    missing_true: npt.NDArray[np.bool_]
    true: npt.NDArray[np.int64]
    false: npt.NDArray[np.int64]
    members: dict[int, npt.NDArray[np.float64]]
    roots: npt.NDArray[np.int64]
    weights: Floats  # of the ends

    def goes_true(self, inputs: Floats) -> npt.NDArray[np.bool_]:
        """Which way rows of inputs, shape (rows, columns), go at each node: shape (rows, nodes)."""
        values = inputs[:, self.feature]
        ways = np.zeros(values.shape, dtype=np.bool_)
        compare: dict[int, Callable[[Any, Any], Any]] = {
            _LEQ: np.less_equal, _LESS: np.less, _GREATER_EQUAL: np.greater_equal, _GREATER: np.greater,
            _EQUAL: np.equal, _UNEQUAL: np.not_equal,
        }  # fmt: skip
        for mode, holds in compare.items():
            nodes = self.mode == mode
            ways[:, nodes] = holds(values[:, nodes], self.split[nodes])
        for node, members in self.members.items():
            ways[:, node] = np.isin(values[:, node], members)
        return ways | (np.isnan(values) & self.missing_true)


class Trees(NamedTuple):
    """A model of trees, in parts that can be asked. `margin`: what it adds up, before a sigmoid where it has one."""

    nodes: Nodes
    scale: str  # log-odds or probability
    parts: Callable[[Floats], tuple[Floats, Floats, Floats]]  # rows -> the trees' inputs, their sum, the margin


def opened(content: bytes) -> Trees:
    """An ONNX file that `trainer.onnx_graph` wrote. NotTreesError where it is no one sum of trees."""
    kinds = messages("truekeep.explain", _TABLE)
    model = kinds["Model"].FromString(content)
    graph = model.graph
    ensembles = [node for node in graph.node if node.op_type == "TreeEnsemble"]
    sigmoids = [node for node in graph.node if node.op_type == "Sigmoid"]
    if len(ensembles) != 1 or len(sigmoids) > 1:
        raise NotTreesError(f"the model holds {len(ensembles)} sums of trees and {len(sigmoids)} sigmoids")
    (ensemble,) = ensembles
    margin = sigmoids[0].input[0] if sigmoids else compiled.OUTPUT
    names = [ensemble.input[0], ensemble.output[0], margin]
    for name in dict.fromkeys(names):
        if name not in (compiled.INPUT, compiled.OUTPUT):
            model.graph.output.add(name=name)
    session = compiled.session(model.SerializeToString())  # with all fields that the table does not know

    def parts(rows: Floats) -> tuple[Floats, Floats, Floats]:
        wanted = [name for name in dict.fromkeys(names) if name != compiled.INPUT]
        answers = dict(zip(wanted, session.run(wanted, {compiled.INPUT: rows}), strict=True))
        inputs, total, seen = (np.asarray({compiled.INPUT: rows, **answers}[name], dtype=np.float64) for name in names)
        return inputs, total.reshape(-1), seen.reshape(-1)

    return Trees(_nodes(ensemble), "log-odds" if sigmoids else "probability", parts)


def values(trees: Trees, row: Floats, background: Floats) -> Values:
    """Exact values, in the unit of `trees.scale`. NotTreesError where the trees' inputs mix features, or there are too
    many of either."""
    if len(row) > MOST_FEATURES:
        raise NotTreesError(f"the model has {len(row)} features; at most {MOST_FEATURES} are walked")
    inputs, totals, margins = trees.parts(np.concatenate([background, row[None]]))
    slope, offset = _line(totals, margins)
    owners = _owners(trees, row, background, inputs)
    found = np.zeros(len(row))
    # Background rows by themselves, so that the paths that are under way stay few.
    for start in range(0, len(background), 10):
        found += _walked(trees.nodes, owners, inputs[-1], inputs[start : min(start + 10, len(background))], len(row))
    return Values(float(offset + slope * totals[:-1].mean()), slope * found / len(background))


def _line(totals: Floats, margins: Floats) -> tuple[float, float]:
    """The line by which the margin follows from the trees' sum: forests divide, boosters add a start."""
    low, high = int(np.argmin(totals)), int(np.argmax(totals))
    spread = float(totals[high] - totals[low])
    slope = float(margins[high] - margins[low]) / spread if spread else 1.0  # of 0, where all rows end alike
    offset = float(margins[low] - slope * totals[low])
    if np.abs(offset + slope * totals - margins).max() > AFFINE * max(1.0, np.abs(margins).max()):
        raise NotTreesError("the model's answer is no line of the sum of its trees")
    return slope, offset


def _owners(trees: Trees, row: Floats, background: Floats, inputs: Floats) -> npt.NDArray[np.int64]:
    """Which feature each column of the trees' inputs is made from; -1 where it is the same in all rows."""
    there, here = inputs[:-1], inputs[-1]
    owners = np.full(inputs.shape[1], -1)
    for feature in range(len(row)):
        mixed = background.copy()
        mixed[:, feature] = row[feature]
        made = trees.parts(mixed)[0]
        columns = (~_same(made, there)).any(axis=0)
        if (owners[columns] != -1).any() or not _same(made[:, columns], here[columns]).all():
            raise NotTreesError("what prepares the model's input makes a column of several features")
        owners[columns] = feature
    unowned = owners == -1
    if not _same(here[unowned], there[:, unowned]).all():
        raise NotTreesError("what prepares the model's input makes a column of several features")
    return owners


def _same(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    result: npt.NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return result


def _walked(
    nodes: Nodes, owners: npt.NDArray[np.int64], here: Floats, there: Floats, features: int
) -> npt.NDArray[np.float64]:
    """The sum over background inputs `there` (rows, columns) of what each feature adds, shape (features,). All paths of
    all trees and rows go down together, a level a step."""
    mine, theirs = nodes.goes_true(here[None])[0], nodes.goes_true(there)
    bit = np.where(owners[nodes.feature] >= 0, np.int64(1) << np.maximum(owners[nodes.feature], 0), 0)
    node = np.repeat(nodes.roots, len(there))
    of = np.tile(np.arange(len(there)), len(nodes.roots))
    taken = left = np.zeros(len(node), dtype=np.int64)  # features that are the row's, and the background's
    gained, lost = coalition_weights(features)
    found = np.zeros(features)
    while len(node):
        if len(node) > MOST_PATHS:
            raise NotTreesError(f"more than {MOST_PATHS:,} paths are to be walked")
        ours, other, bits = mine[node], theirs[of, node], bit[node]
        # x's way: where both agree, or the feature is not z's already; z's way: where they don't, and it is not x's.
        agree = ours == other
        first = agree | (left & bits == 0)
        second = ~agree & (taken & bits == 0)
        to = np.concatenate([_next(nodes, node[first], ours[first]), _next(nodes, node[second], other[second])])
        of = np.concatenate([of[first], of[second]])
        taken, left = (
            np.concatenate([np.where(agree, taken, taken | bits)[first], taken[second]]),
            np.concatenate([left[first], (left | bits)[second]]),
        )
        ended = to < 0
        found += _told(nodes.weights[~to[ended]], taken[ended], left[ended], gained, lost)
        going = ~ended
        node, of, taken, left = to[going], of[going], taken[going], left[going]
    return found


def _told(
    weights: Floats, taken: npt.NDArray[np.int64], left: npt.NDArray[np.int64], gained: Floats, lost: Floats
) -> Floats:
    """What the ends of paths give to each feature."""
    bits = np.arange(len(gained) - 1)
    mine, theirs = (taken[:, None] >> bits & 1).astype(bool), (left[:, None] >> bits & 1).astype(bool)
    a, b = mine.sum(axis=1), theirs.sum(axis=1)
    given: Floats = (mine * (weights * gained[a, b])[:, None] - theirs * (weights * lost[a, b])[:, None]).sum(axis=0)
    return given


def _next(nodes: Nodes, node: npt.NDArray[np.int64], way: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    return np.where(way, nodes.true[node], nodes.false[node])


def _nodes(ensemble: Any) -> Nodes:
    """The attributes of a TreeEnsemble (ai.onnx.ml 5) as arrays."""
    numbers, tensors = {}, {}
    for attribute in ensemble.attribute:
        numbers[attribute.name] = np.array(attribute.ints, dtype=np.int64)
        tensors[attribute.name] = _tensor(attribute.t)
    modes = tensors["nodes_modes"].astype(np.int64)

    def to(side: str) -> npt.NDArray[np.int64]:
        ids, ends = numbers[f"nodes_{side}nodeids"], numbers[f"nodes_{side}leafs"].astype(bool)
        return np.where(ends, ~ids, ids)

    members, known = {}, tensors.get("membership_values", np.empty(0))
    stops = np.flatnonzero(np.isnan(known))  # a set ends with a NaN, for each node that asks for one in their order
    starts = np.concatenate([[0], stops + 1])
    for place, node in enumerate(np.flatnonzero(modes == _MEMBER).tolist()):
        members[node] = known[starts[place] : stops[place]]
    return Nodes(
        feature=numbers["nodes_featureids"],
        split=tensors["nodes_splits"].astype(np.float64),
        mode=modes,
        missing_true=numbers["nodes_missing_value_tracks_true"].astype(bool),
        true=to("true"),
        false=to("false"),
        members=members,
        roots=numbers["tree_roots"],
        weights=tensors["leaf_weights"].astype(np.float64),
    )


def _tensor(tensor: Any) -> npt.NDArray[Any]:
    kind = _NUMPY.get(tensor.data_type)
    if kind is None:
        return np.empty(0)
    return np.frombuffer(tensor.raw_data, dtype=kind) if tensor.raw_data else np.array(tensor.double_data, dtype=kind)
