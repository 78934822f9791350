"""The trees of LightGBM and XGBoost, from what the libraries say of their models in JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from truekeep.trainer.onnx.nodes import Graph, NotConvertibleError
from truekeep.trainer.onnx.trees import Tree, ensemble, single_precision


def lightgbm(graph: Graph, model: Any, name: str) -> str:
    """The probability by a fitted LGBMClassifier, shape (rows, 1)."""
    described = model.booster_.dump_model()
    kind, _, settings = described["objective"].partition(" ")
    if kind != "binary" or described["num_tree_per_iteration"] != 1:
        raise NotConvertibleError(f"LGBMClassifier with the objective {described['objective']} has no translation")
    trees = [_of_lightgbm(info["tree_structure"]) for info in described["tree_info"]]
    score = ensemble(graph, trees, name)
    if described["average_output"]:  # boosting_type rf
        score = graph.node("Div", [score, graph.constant(np.array(float(len(trees))))])
    steepness = float(dict(part.split(":") for part in settings.split() if ":" in part).get("sigmoid", 1.0))
    if steepness != 1.0:
        score = graph.node("Mul", [score, graph.constant(np.array(steepness))])
    return graph.node("Sigmoid", [score])


def _of_lightgbm(root: Mapping[str, Any]) -> Tree:
    """A tree of nested nodes. Depth first, with a stack: trees may be deep."""
    nodes: list[Mapping[str, Any]] = []
    left: list[int] = []
    right: list[int] = []
    waiting: list[tuple[Mapping[str, Any], int, list[int] | None]] = [(root, 0, None)]
    while waiting:
        node, parent, side = waiting.pop()
        if side is not None:
            side[parent] = len(nodes)
        place = len(nodes)
        nodes.append(node)
        left.append(-1)
        right.append(-1)
        if "split_index" in node:
            if node["decision_type"] != "<=":
                raise NotConvertibleError(f"LGBMClassifier has a split by {node['decision_type']}")
            waiting.append((node["right_child"], place, right))
            waiting.append((node["left_child"], place, left))
    return Tree(
        left=np.array(left, dtype=np.int64),
        right=np.array(right, dtype=np.int64),
        leaf=np.array(["split_index" not in node for node in nodes]),
        feature=np.array([node.get("split_feature", 0) for node in nodes], dtype=np.int64),
        threshold=np.array([node.get("threshold", 0.0) for node in nodes], dtype=np.float64),
        missing_left=np.array([_nulls_go_left(node) for node in nodes]),
        value=np.array([node.get("leaf_value", 0.0) for node in nodes], dtype=np.float64),
    )


def _nulls_go_left(node: Mapping[str, Any]) -> bool:
    if "split_index" not in node:
        return False
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":  # training saw no null there: LightGBM then takes it for 0
        return bool(node["threshold"] >= 0.0)
    raise NotConvertibleError(f"LGBMClassifier treats {node['missing_type']} as missing")


def xgboost(graph: Graph, model: Any, name: str) -> str:
    """The probability by a fitted XGBClassifier, shape (rows, 1). It compares in single precision, and so does this;
    it also sums in single precision, and this does not."""
    booster = model.get_booster()
    learner = json.loads(booster.save_raw("json"))["learner"]
    boosted = learner["gradient_booster"]
    if boosted["name"] != "gbtree" or learner["objective"]["name"] != "binary:logistic":
        raise NotConvertibleError(
            f"XGBClassifier with the booster {boosted['name']} and the objective {learner['objective']['name']} has no "
            "translation"
        )
    trees = [_of_xgboost(tree) for tree in boosted["model"]["trees"]]
    score = ensemble(graph, trees, single_precision(graph, name))
    start = float(learner["learner_model_param"]["base_score"].strip("[]"))
    return graph.node(
        "Sigmoid", [graph.node("Add", [score, graph.constant(np.array(math.log(start) - math.log1p(-start)))])]
    )


def _of_xgboost(tree: Mapping[str, Any]) -> Tree:
    if any(tree["split_type"]):
        raise NotConvertibleError("XGBClassifier has a split by categories")
    left = np.array(tree["left_children"], dtype=np.int64)
    conditions: npt.NDArray[np.float64] = np.array(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    return Tree(
        left=left,
        right=np.array(tree["right_children"], dtype=np.int64),
        leaf=left == -1,
        feature=np.array(tree["split_indices"], dtype=np.int64),
        threshold=conditions,
        missing_left=np.array(tree["default_left"], dtype=np.bool_),
        value=conditions,  # of a leaf
        strict=True,
    )
