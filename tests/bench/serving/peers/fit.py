"""The same model as a team has it: a pipeline over a DataFrame, as joblib. `python fit.py ROWS.json OUT`."""

import json
import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

given = json.loads(Path(sys.argv[1]).read_text())
frame = pd.DataFrame(given["columns"])
impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
prepare = ColumnTransformer(
    [
        ("number", Pipeline([("impute", impute), ("scale", StandardScaler())]), given["numbers"]),
        ("category", OneHotEncoder(handle_unknown="ignore"), given["categories"]),
    ]
)
pipeline = Pipeline([("features", prepare), ("estimator", LogisticRegression())]).fit(frame, given["labels"])
joblib.dump(pipeline, sys.argv[2])
