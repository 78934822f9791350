"""The server does what its OpenAPI page says: any request that fits the page, and many that don't, get an answer that
the page foresees, and whose body fits the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.unit.server.conftest import MODEL, NAMES, Running, body
from tests.unit.server.hostile import assert_sound

Schema = Mapping[str, Any]
INFER = f"/v2/models/{MODEL}/infer"
quickly = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def server(shared: Running) -> Iterator[Running]:
    yield shared
    assert_sound(shared)


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def page(client: httpx.Client) -> Any:
    return client.get("/openapi.json").json()


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*NAMES, "AA", "1", "2013-05-01", "\x00", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


def fits(schema: Schema, page: Any) -> st.SearchStrategy[Any]:
    """Documents that fit a schema of the page: as much of JSON Schema as the page uses."""
    known = {"$ref", "type", "enum", "examples", "properties", "required", "items", "minItems", "maxItems", "minimum"}
    assert set(schema) <= known | {"description"}, f"teach the test {set(schema) - known}"
    if "$ref" in schema:
        return fits(page["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], page)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string":
            return st.sampled_from(schema["examples"]) if "examples" in schema else st.text(max_size=5)
        case "integer":
            return st.integers(schema.get("minimum", -3), 3)
        case "array":
            items = fits(schema["items"], page) if "items" in schema else anything
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 5))
        case "object" if "properties" in schema:
            parts = {name: fits(part, page) for name, part in schema["properties"].items()}
            must = {name: part for name, part in parts.items() if name in schema.get("required", ())}
            return st.fixed_dictionaries(must, optional={n: part for n, part in parts.items() if n not in must})
        case "object":
            return st.dictionaries(st.text(max_size=4), anything, max_size=2)
    raise AssertionError(f"teach the test {schema}")


def check(page: Any, operation: Any, answer: httpx.Response) -> None:
    """Status and body are the page's."""
    promised = operation["responses"]
    assert str(answer.status_code) in promised, f"{answer.status_code} is not on the page: {answer.text[:300]}"
    content = promised[str(answer.status_code)].get("content", {})
    if "application/json" in content:
        assert answer.headers["content-type"] == "application/json"
        schema = {**content["application/json"]["schema"], "components": page["components"]}
        jsonschema.validate(answer.json(), schema, cls=jsonschema.Draft202012Validator)


def infer(page: Any) -> Any:
    return page["paths"][INFER]["post"]


@quickly
@given(data=st.data())
def test_any_request_that_fits_the_page_gets_an_answer_of_the_page(page: Any, client: httpx.Client, data: Any) -> None:
    request = data.draw(fits(infer(page)["requestBody"]["content"]["application/json"]["schema"], page))
    check(page, infer(page), client.post(INFER, content=orjson.dumps(request)))


@quickly
@given(data=st.data())
def test_a_good_request_with_one_member_that_is_wrong_too(page: Any, client: httpx.Client, data: Any) -> None:
    request: Any = body()
    place = data.draw(st.sampled_from([request, *request["inputs"]]))
    place[data.draw(st.sampled_from([*place, "id", "outputs", "parameters"]))] = data.draw(anything)
    check(page, infer(page), client.post(INFER, content=orjson.dumps(request)))


@quickly
@given(
    header=st.sampled_from(["content-encoding", "inference-header-content-length", "accept", "content-type", "expect"]),
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
)
def test_any_header_too(page: Any, client: httpx.Client, header: str, value: str) -> None:
    assume(header != "expect" or value.lower() == "100-continue")
    check(page, infer(page), client.post(INFER, content=orjson.dumps(body()), headers={header: value}))


def test_every_path_of_the_page_answers_as_it_says(page: Any, client: httpx.Client) -> None:
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            content = orjson.dumps(body()) if method == "post" else None
            answer = client.request(method, path, content=content)
            assert answer.status_code == 200
            check(page, operation, answer)


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_every_other_method_is_refused_everywhere(page: Any, client: httpx.Client, method: str) -> None:
    for path in page["paths"]:
        answer = client.request(method, path)
        assert (answer.status_code, list(answer.json())) == (405, ["error"]), path


def test_the_example_of_the_page_is_answered(page: Any, client: httpx.Client) -> None:
    example = infer(page)["requestBody"]["content"]["application/json"]["example"]
    assert client.post(INFER, json=example).status_code == 200
