"""The estimators that a recipe may name. The list is closed: an import path in a YAML never imports anything else.

skops' trust list is fixed per estimator beside the trainer; this module stays free of scikit-learn, because the
operator and the CRDs read it too.
"""

from __future__ import annotations

ESTIMATORS: tuple[str, ...] = (
    "sklearn.ensemble.ExtraTreesClassifier",
    "sklearn.ensemble.GradientBoostingClassifier",
    "sklearn.ensemble.HistGradientBoostingClassifier",
    "sklearn.ensemble.RandomForestClassifier",
    "sklearn.linear_model.LogisticRegression",
)
