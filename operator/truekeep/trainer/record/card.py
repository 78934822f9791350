"""A model card from what is declared and what the run found (Mitchell et al., Model Cards for Model Reporting, 2019).

Plain text; who shows it escapes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truekeep.api.features import KINDS
from truekeep.contract.artifact import SignatureFeature
from truekeep.profiling.schema import Profile

Record = Mapping[str, Any]
_NAMES = 40  # characters of a category that is shown
_VALUES = 5  # categories that are shown


def estimator(record: Record) -> str:
    """What was fitted."""
    declared = record["training"]["declared"]
    recipe = declared.get("recipe")
    image = declared.get("image")
    if image:
        return f"what spec.training.image made ({image['reference']}), format {image['format']}"
    return str(recipe["estimator"]) if recipe else "a model that was trained elsewhere"


def rule(record: Record) -> str:
    """How the cut-off was chosen."""
    decision = record["evaluation"]["declared"].get("decision")
    if "import" in record["evaluation"]:
        return "the imported model's own"
    if decision is None:
        return "by default"
    value = f" {decision['value']}" if decision.get("value") else ""
    return f"by the rule {decision['rule']}{value}"


def purpose(record: Record) -> Iterator[tuple[str, str]]:
    """What it is for."""
    data = record["data"]["declared"]
    parameters = (record["training"]["declared"].get("recipe") or {}).get("parameters", [])
    yield "answers", f"the probability that {data['label']['column']} is 1, for one row at a time"
    yield "model", estimator(record)
    yield "parameters", ", ".join(f"{one['name']} = {one['value']}" for one in parameters)
    tuned = (record["training"].get("tuning") or {}).get("best") or {}
    yield "tuned to", ", ".join(f"{one['name']} = {one['value']}" for one in tuned.get("parameters", []))
    steps = (record["training"]["declared"].get("recipe") or {}).get("transformers", [])
    yield "transformers", "; ".join(_step(one) for one in steps)
    yield "seed", str(record["training"]["seed"]) if record["training"]["seed"] is not None else ""


def documents(record: Record) -> Iterator[tuple[str, str]]:
    """What people wrote about it elsewhere; nothing where nobody said."""
    said = record.get("documentation") or {}
    for name, words in (
        ("purpose", "purpose"), ("riskAssessment", "risk assessment"), ("technical", "technical documentation"),
        ("instructions", "instructions for use"), ("oversight", "oversight"), ("monitoringPlan", "monitoring plan"),
    ):  # fmt: skip
        if said.get(name):
            yield words, said[name]


def _step(declared: Mapping[str, Any]) -> str:
    """A transformer in a few words."""
    (kind,) = (name for name in KINDS if name in declared)
    ratio = declared.get("ratio")
    columns = f"{ratio['numerator']} by {ratio['denominator']}" if ratio else ", ".join(declared["columns"])
    return f"{declared['name']}: {kind} of {columns}"


def inputs(
    record: Record, features: Sequence[SignatureFeature], profile: Profile | None
) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, type, declared range, nulls, and what training saw of each."""
    known = {feature.name: feature for feature in features}
    for one in record["data"]["declared"]["features"]:
        low, high = one.get("minimum"), one.get("maximum")
        declared = {
            (True, True): f"{low} … {high}", (True, False): f"from {low}", (False, True): f"up to {high}",
            (False, False): "any",
        }[low is not None, high is not None]  # fmt: skip
        if one["type"] == "Category":
            declared = f"at most {one['maxCategories']} values" if one.get("maxCategories") else "any"
        nulls = "refused" if one.get("nulls") == "Refuse" else "allowed"
        yield one["name"], one["type"], declared, nulls, _seen(known.get(one["name"]), profile)


def _seen(feature: SignatureFeature | None, profile: Profile | None) -> str:
    if feature is None or feature.type == "Time":
        return "–"
    if feature.categories is not None:
        names = ", ".join(name if len(name) <= _NAMES else name[: _NAMES - 1] + "…"
                          for name in feature.categories[:_VALUES])  # fmt: skip
        rest = len(feature.categories) - _VALUES
        return f"{names} and {rest:,} more" if rest > 0 else names
    column = profile.column(feature.name) if profile else None
    if column is None or column.numeric.minimum is None or column.numeric.maximum is None:
        return "–"
    return f"{column.numeric.minimum:.4g} … {column.numeric.maximum:.4g}"


def training(record: Record) -> Iterator[tuple[str, str]]:
    """What it was fitted on."""
    data, declared, found = record["data"], record["data"]["declared"], record["evaluation"]
    imported = found.get("import")
    if imported:
        yield "trained", f"elsewhere, from {imported.get('source') or 'a file that nobody named'}"
        yield "until", imported.get("trainedUntil") or "nobody said"
        return
    yield "source", _where(declared["source"])
    if data.get("sampling") == "ByKeyHash":
        yield "sampled", f"by the hash of {declared['key']}, from {data['sampledFrom']:,} rows; judged on the same part"
    yield "joined with", ", ".join(f"{one['name']} ({_where(one['source'])})" for one in declared.get("joins", []))
    label = declared["label"]
    where = f" from {_where(label['source'])}" if label.get("source") else ""
    ripe = f", final {label['maturesAfterSeconds']:,} s after the event" if label.get("maturesAfterSeconds") else ""
    yield "label", f"{label['column']}{where}{ripe}"
    yield (
        "events",
        f"{data.get('windowStart', '–')} to {record['training']['trainedUntil'] or data.get('windowEnd', '–')}",
    )
    if train := found.get("train"):
        yield (
            "judged model",
            f"fitted on {train['rows']:,} rows until {train['until']}, {train['positives']:,} positive",
        )
    if image := found.get("image"):
        yield "image", image.get("imageId") or image["reference"]
        said = ", ".join(f"{name} {value:g}" for name, value in image["reported"].items())
        yield "reported by the image", f"{said}: its own words, which decided nothing" if said else ""
    if refit := found.get("refit"):
        yield "published model", f"the same settings, fitted again on all {refit['rows']:,} rows"


def evaluation(record: Record) -> Iterator[tuple[str, str]]:
    """What it was judged on."""
    found, declared = record["evaluation"], record["evaluation"]["declared"]
    holdout = found.get("holdout")
    if holdout is None:
        yield "judged", "on nothing: the run ended before"
        return
    yield "holdout", f"{holdout['rows']:,} rows since {holdout['since']}, {holdout['positives']:,} positive"
    if imported := found.get("import"):
        yield "new to it", str(imported["words"])
    else:
        yield "new to it", "yes: the judged model was fitted on older rows only"
    sets = [f"{one['name']} ({_where(one['source'])})" for one in declared.get("benchmarks", [])]
    yield "benchmark sets", ", ".join(sets) or "none declared"


def _where(source: Mapping[str, Any]) -> str:
    """A declared source's place, as its pins' addresses begin."""
    if pvc := source.get("pvc"):
        return f"pvc://{pvc['claimName']}/{pvc.get('path', '')}"
    if dvc := source.get("dvc"):
        return f"dvc+{dvc['remote']['uri']}{dvc['path']}"
    return str(source["s3"]["uri"])


def limits(record: Record) -> Iterator[str]:
    """What nobody should conclude from it."""
    data, found, declared = record["data"], record["evaluation"], record["evaluation"]["declared"]
    if data.get("windowEnd"):
        yield (
            f"It knows events until {data['windowEnd']}; what changed since then it does not know. A DriftPolicy "
            "watches that."
        )
    if data.get("unlabelled") or data.get("unripe"):
        yield (
            f"{data.get('unlabelled', 0):,} rows without a label and {data.get('unripe', 0):,} whose label is not "
            "final were left out; where these differ from the others, the metrics do not say so."
        )
    weak = sorted({gate["name"] for gate in found["gates"] if gate["result"] == "NotJudged"})
    if weak:
        listed = ", ".join(weak[:10]) + (f" and {len(weak) - 10} more" if len(weak) > 10 else "")
        yield f"Too few rows to judge: {listed}."
    asked = {"slices": "groups (evaluation.slices)", "fairness": "fairness (evaluation.fairness)",
             "robustness": "missing columns (evaluation.robustness)"}  # fmt: skip
    silent = [words for name, words in asked.items() if not declared.get(name)]
    if silent:
        yield f"Nothing is declared, so nothing was judged, about {', '.join(silent)}."
    if found.get("refit"):
        yield (
            "The published model was fitted again on all rows, the holdout included; the metrics are those of the same "
            "settings fitted without them."
        )
    if imported := found.get("import"):
        yield str(imported["words"])
    if data.get("replayable") != "True":
        yield "The store keeps no versions of the data: the run can be read again only while the objects stay."
    for warning in [*found.get("warnings", []), *(found.get("refit") or {}).get("warnings", [])]:
        yield f"scikit-learn warned: {warning}"
    if reason := (found.get("onnx") or {}).get("reason"):
        yield f"It is served by scikit-learn, not as ONNX: {reason}."
