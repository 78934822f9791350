"""A model of a team's own format, and its server: a log-odds a category and a weight a number, in JSON.

`fit` (`python3 -c "import sums; sums.fit()"`) writes weights.json; run as a program, it serves that over the Open
Inference Protocol. Python's own library is enough for both but for reading Parquet."""

import json
import math
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def fit() -> None:
    """Log-odds by value of each Category; numbers are left alone."""
    import pyarrow.parquet as pq

    given, out = os.environ["TRUEKEEP_IN"], os.environ["TRUEKEEP_OUT"]
    with open(f"{given}/features.json") as file:
        meaning = json.load(file)
    rows = pq.read_table(f"{given}/train.parquet")
    labels = rows[meaning["label"]].to_pylist()
    base = odds(labels)
    weights = {}
    for feature in meaning["features"]:
        if feature["type"] != "Category":
            continue
        found = {}
        for value, label in zip(rows[feature["name"]].to_pylist(), labels, strict=True):
            found.setdefault(value, []).append(label)
        weights[feature["name"]] = {str(value): odds(seen) - base for value, seen in found.items()}
    with open(f"{out}/weights.json", "w") as file:
        json.dump({"base": base, "weights": weights}, file)


def odds(labels: list) -> float:
    share = (sum(labels) + 1) / (len(labels) + 10)
    return math.log(share / (1 - share))


def scores(model: dict, columns: dict) -> list:
    rows = len(next(iter(columns.values())))
    found = [model["base"]] * rows
    for name, weights in model["weights"].items():
        found = [each + weights.get(str(value), 0.0) for each, value in zip(found, columns[name], strict=True)]
    return [1 / (1 + math.exp(-each)) for each in found]


def serve() -> None:
    with open(os.path.join(os.environ["TRUEKEEP_MODEL_DIR"], "weights.json")) as file:
        model = json.load(file)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self.say(200 if self.path == "/v2/health/ready" else 404, {})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = scores(model, {one["name"]: one["data"] for one in request["inputs"]})
            output = {"name": "probability", "shape": [len(found)], "datatype": "FP64", "data": found}
            self.say(200, {"model_name": os.environ["MODEL_NAME"], "outputs": [output]})

        def say(self, status: int, document: dict) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    serve()
