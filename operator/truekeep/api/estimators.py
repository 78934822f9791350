"""The estimators that a recipe may name. The list is closed: an import path in a YAML never imports anything else.

skops' trust list is fixed per estimator beside the trainer; this module stays free of scikit-learn, because the
operator and the CRDs read it too.
"""

from __future__ import annotations

ESTIMATORS: tuple[str, ...] = (
    "lightgbm.LGBMClassifier",
    "sklearn.ensemble.ExtraTreesClassifier",
    "sklearn.ensemble.GradientBoostingClassifier",
    "sklearn.ensemble.HistGradientBoostingClassifier",
    "sklearn.ensemble.RandomForestClassifier",
    "sklearn.linear_model.LogisticRegression",
    "sklearn.linear_model.SGDClassifier",
    "xgboost.XGBClassifier",
)

# Of these only ONNX is published: no server has their package, and none of their formats has a skops file's trust list.
ONNX_ONLY: frozenset[str] = frozenset(("lightgbm.LGBMClassifier", "xgboost.XGBClassifier"))
