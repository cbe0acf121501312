"""A service of a graph that is made by hand, with names that nobody would give."""

import hashlib
import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.serve.bundle import Bundle, load_bundle
from pipeline.serve.service import Service, Settings
from tests.support.serving import IMAGE, NAMES, TITLE


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives back its first column."""
    made = tmp_path_factory.mktemp("attacks")
    number = helper.make_tensor_value_info("c0", TensorProto.DOUBLE, ["rows"])
    word = helper.make_tensor_value_info("c1", TensorProto.STRING, ["rows"])
    result = helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["rows"])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["c0"], ["prediction"])], "g", [number, word], [result]
    )
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    onnx.checker.check_model(content)
    (made / "model.onnx").write_bytes(content)
    inputs = [
        {"name": "c0", "column": IMAGE, "kind": "numeric", "shape": ["rows"], "mean": 0.0},
        {"name": "c1", "column": "\x1b]0;x\x07", "kind": "categorical", "shape": ["rows"]},
    ]
    inputs[1]["categories"] = NAMES
    signature = {
        "model_md5": "0123",
        "onnx_md5": hashlib.md5(content).hexdigest(),
        "task": "regression",
        "target": TITLE,
        "key": None,
        "classes": None,
        "inputs": inputs,
        "outputs": [{"name": "prediction", "type": "float64", "shape": ["rows"]}],
    }
    (made / "signature.json").write_text(json.dumps(signature))
    return made


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


@pytest.fixture
def service(folder: Path, bundle: Bundle) -> Service:
    return Service(Settings(folder, hosts=frozenset({"models.example"})), bundle)
