"""The Open Inference Protocol: tensors, in JSON and in binary."""

import json

import numpy as np
import pytest

from pipeline.serve.codec.tensors import from_bytes, to_bytes
from pipeline.serve.service import Service
from tests.support.serving import ROWS, ask, tensors


def test_the_protocol_describes_the_model(service: Service) -> None:
    assert ask(service, "GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    assert ask(service, "GET", "/v2/health/live").json() == {"live": True}
    assert ask(service, "GET", "/v2/health/ready").json() == {"ready": True}
    model = ask(service, "GET", "/v2/models/reprise").json()
    assert model["versions"] == [service.bundle.version]
    assert model["inputs"][3] == {"name": "picture", "datatype": "FP32", "shape": [-1, 2, 3]}
    assert model["outputs"][1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}
    version = f"/v2/models/reprise/versions/{service.bundle.version}"
    assert ask(service, "GET", version).json() == model
    assert ask(service, "GET", f"{version}/ready").json() == {"name": "reprise", "ready": True}
    for path in ("/v2/models/x", "/v2/models/x/ready", "/v2/models/reprise/versions/1", "/v3"):
        answer = ask(service, "GET", path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
    assert ask(service, "GET", "/predict").status_code == 405
    service.is_stopping = lambda: True
    for path in ("/v2/health/ready", "/v2/models/reprise/ready"):
        answer = ask(service, "GET", path)
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert ask(service, "GET", "/v2/health/live").status_code == 200


def test_the_protocol_infers_what_the_rows_give(service: Service) -> None:
    rows = ask(service, "POST", "/predict", {"rows": ROWS}).json()["predictions"]
    body = {"id": "7", "inputs": tensors(ROWS)}
    version = f"/v2/models/reprise/versions/{service.bundle.version}"
    for path in ("/v2/models/reprise/infer", f"{version}/infer"):
        found = ask(service, "POST", path, body).json()
        assert (found["id"], found["model_version"]) == ("7", service.bundle.version)
        names, probabilities, sets = found["outputs"]
        in_set = [name in row["set"] for row in rows for name in row["probabilities"]]
        assert (sets["datatype"], sets["data"]) == ("BOOL", in_set)
        assert (names["datatype"], names["shape"]) == ("BYTES", [len(ROWS)])
        assert names["data"] == [row["prediction"] for row in rows]
        expected = [chance for row in rows for chance in row["probabilities"].values()]
        np.testing.assert_allclose(probabilities["data"], expected, atol=1e-9)
    body["outputs"] = [{"name": "probabilities"}]
    (only,) = ask(service, "POST", path, body).json()["outputs"]
    assert only["name"] == "probabilities"
    # A gap as Python's own JSON has it, a column as one of a table, whole numbers.
    odd = tensors(ROWS[:1])
    odd[0] |= {"data": [float("nan")], "shape": [1, 1]}
    odd[3] |= {"datatype": "INT64", "data": np.array(ROWS[0]["picture"]).ravel().tolist()}
    gap = tensors([{**ROWS[0], "size": None}])
    first, second = (
        ask(service, "POST", path, {"inputs": inputs}).json()["outputs"] for inputs in (odd, gap)
    )
    assert first == second


def test_the_binary_extension_goes_both_ways(service: Service) -> None:
    path = "/v2/models/reprise/infer"
    plain = ask(service, "POST", path, {"inputs": tensors(ROWS[:9])}).json()["outputs"]
    encoded = service.bundle.encode(ROWS[:9])
    feeds = {each.column: encoded[each.name] for each in service.bundle.signature.inputs}
    inputs, parts = [], []
    for each in tensors(ROWS[:9]):
        parts.append(to_bytes(feeds[each["name"]], each["datatype"]))
        each["parameters"] = {"binary_data_size": len(parts[-1])}
        del each["data"]
        inputs.append(each)
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = ask(service, "POST", path, head + b"".join(parts), headers=length)
    assert answer.headers["content-type"] == "application/octet-stream"
    said = int(answer.headers["inference-header-content-length"])
    start = said
    for output, expected in zip(json.loads(answer.content[:said])["outputs"], plain, strict=True):
        size = output["parameters"]["binary_data_size"]
        raw = answer.content[start : start + size]
        tensor = from_bytes(raw, output["datatype"], tuple(output["shape"]), "x")
        assert tensor.ravel().tolist() == expected["data"]
        start += size
    assert start == len(answer.content)
    for wrong in (head + b"".join(parts)[:-1], head + b"".join(parts) + b"x"):
        assert ask(service, "POST", path, wrong, headers=length).status_code == 400
    for number in ("x", "-1", "9" * 5000, str(10**6)):
        length = {"Inference-Header-Content-Length": number}
        assert ask(service, "POST", path, head, headers=length).status_code == 400


# Stands for a value that is nested deeply.
DEEP = "DEEP"


def changed(index: int, **values: object) -> dict[str, object]:
    inputs = tensors(ROWS[:2])
    inputs[index] |= values
    return {"inputs": inputs}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "inputs"),
        ({"inputs": [1]}, "an object"),
        ({"inputs": tensors(ROWS[:2])[1:]}, "missing: size"),
        ({"inputs": tensors(ROWS[:2]) + tensors(ROWS[:2])}, "'size' is there twice"),
        (changed(0, name="siz"), "no input 'siz'; the model has size, town"),
        (changed(0, datatype="FP8"), "'FP8' is none of BOOL"),
        (changed(0, shape=[2, 2]), "shape"),
        (changed(0, shape=[3]), "2 values do not fill"),
        (changed(0, shape=[2**62]), "do not fill"),
        (changed(0, data=["a", "b"]), "no FP64"),
        (changed(0, data={}), "data must be a list"),
        (changed(0, data=None), "data must be a list"),
        (changed(0, data=1.0, shape=[1]), "data must be a list"),
        (changed(0, parameters={"binary_data_size": 0}), "both data and binary_data_size"),
        (changed(0, datatype="FP16", data=[1.0, 1e6]), "FP16 does not hold"),
        (changed(0, datatype="FP32", data=[1, 10**39]), "FP32 does not hold"),
        (changed(0, datatype="FP32", data=[None, 10**39]), "FP32 does not hold"),
        (changed(0, datatype="INT64", data=[1, 2**64]), "no INT64"),
        (changed(0, name=DEEP), "there is no input [[["),
        (changed(0, datatype=DEEP), "datatype [[["),
        (changed(0, shape=[2, *[1] * 9999]), "is of shape [2, 1,"),
        (changed(1, datatype="FP64", data=[1.5, 2**53 + 1]), "FP64 does not hold 9007199254740993"),
        (changed(1, datatype="FP64", data=[1.5, 2**64 + 1]), "BYTES does, as a text"),
        (changed(0, datatype="INT8", data=[1, 300]), "INT8 does not hold"),
        (changed(0, datatype="BYTES", data=["1", "2"]), "not BYTES"),
        (changed(0, data=[1.0, 1e300]), "computed with"),
        (changed(1, data=["a", 1]), "texts"),
        (changed(2, data=[0.0, 2.0]), "0, 1 or a gap"),
        (changed(3, data=[[1, 2, 3], [4]]), "one length"),
        (changed(3, data=[None] * 12), "without gaps"),
        (changed(3, datatype="FP64", data=[0.0] * 11 + [1e300]), "numbers that float32 holds"),
        ({**changed(0), "outputs": [{"name": DEEP}]}, "there is no output [[["),
        ({**changed(0), "outputs": [{"name": "y"}]}, "no output 'y'"),
        ({**changed(0), "id": 3}, "id"),
        ({**changed(0), "parameters": 3}, "parameters"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(service: Service, body: object, said: str) -> None:
    content = json.dumps(body).replace(f'"{DEEP}"', "[" * 900 + "]" * 900).encode()
    answer = ask(service, "POST", "/v2/models/reprise/infer", content)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]
