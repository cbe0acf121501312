"""Images over HTTP: in base64, as a form's files, as training had them, and what is refused."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline.serve.bundle import load_bundle
from pipeline.serve.codec.problems import RequestError
from pipeline.serve.codec.rows import make_encoder
from pipeline.serve.codec.signature import Input, Signature
from pipeline.serve.http.multipart import read_form, split_form
from pipeline.serve.service import Service, Settings
from stages.infer.write import write_predictions
from stages.model.predictor import load_predictor
from tests.conftest import Project
from tests.support.samples import run_stages, small_project
from tests.support.serving import ask, signature

ROAD = ("prepare", "build", "tune", "train", "infer")
COLOURS = {"red": (200, 30, 30), "blue": (20, 40, 210)}


def photograph(colour: str, number: int, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(number).integers(-20, 20, (*size[::-1], 3))
    return Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8))


def as_bytes(image: Image.Image, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A model of photographs of many sizes, each brought to one."""
    settings = {"prepare.source": "data/raw/photos", "prepare.key": "path"}
    settings |= {"prepare.target": "label", "infer.input": None, "train.epochs": 20}
    settings |= {"prepare.image": {"height": 8, "width": 6}, "prepare.expectations": None}
    made = small_project(
        tmp_path_factory.mktemp("photos") / "p", pl.DataFrame({"y": [1]}), settings
    )
    for number in range(40):
        for colour in COLOURS:
            path = made.path / f"data/raw/photos/{colour}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(colour, number, (10 + number, 30 - number // 2)).save(path)
    run_stages(made, *ROAD)
    return made


@pytest.fixture
def service(project: Project) -> Service:
    folder = project.path / "data/infer"
    return Service(Settings(folder, max_body_bytes=100_000), load_bundle(folder))


NEW = [as_bytes(photograph(c, 99, (31, 40)), k) for c in COLOURS for k in ("PNG", "JPEG")]


def test_predict_base64_and_a_form_say_the_same(
    project: Project, service: Service, tmp_path: Path
) -> None:
    names = [f"{number}.jpg" for number in range(len(NEW))]
    for name, content in zip(names, NEW, strict=True):
        (tmp_path / name).write_bytes(content)
    target = tmp_path.with_name("out.parquet")
    write_predictions(tmp_path, target, None, load_predictor(project.path / "data"), "FILE")
    expected = pl.read_parquet(target)
    assert expected["prediction"].to_list() == ["red", "red", "blue", "blue"]
    texts = [base64.b64encode(content).decode() for content in NEW]
    texts[0] = f"data:image/png;base64,{texts[0]}"
    rows = [{"path": name, "image": text} for name, text in zip(names, texts, strict=True)]
    answered = ask(service, "POST", "/predict", json.dumps({"rows": rows}).encode())
    files = [("image", (name, content)) for name, content in zip(names, NEW, strict=True)]
    of_form = ask(service, "POST", "/predict", files=files)
    for answer in (answered, of_form):
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"]
        assert [row["path"] for row in found] == names
        assert [row["prediction"] for row in found] == expected["prediction"].to_list()
        red = [row["probabilities"]["red"] for row in found]
        np.testing.assert_allclose(red, expected["probability_red"], atol=1e-6)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("", "an image in base64: it can't be read"),
        ("AAAA", "it can't be read: it is no PNG, JPEG"),
        ("%%%", "an image in base64: it holds other characters"),
        (base64.b64encode(NEW[0][:-60]).decode(), "it can't be read: "),
        (base64.b64encode(b"<html>").decode(), "it is no PNG, JPEG"),
        ([[1]], "an array of numbers of shape (8, 6, 3), or an image's bytes in base64"),
        (None, "an array of numbers of shape (8, 6, 3), or an image's bytes in base64"),
    ],
)
def test_what_is_no_image_is_refused_by_its_row(service: Service, image: object, says: str) -> None:
    rows = [
        {"path": "a", "image": base64.b64encode(NEW[0]).decode()},
        {"path": "b", "image": image},
    ]
    answer = ask(service, "POST", "/predict", json.dumps({"rows": rows}).encode())
    assert answer.status_code == 422
    (detail,) = answer.json()["details"]
    assert (detail["row"], detail["column"]) == (1, "image")
    assert says in detail["message"]
    assert len(answer.text) < 2000


def test_limits_hold_for_images(service: Service) -> None:
    answer = ask(service, "POST", "/predict", files=[("image", ("a.png", b"x" * 200_000))])
    assert answer.status_code == 413
    bundle = load_bundle(service.settings.folder)
    assert bundle.signature.max_images == (1 << 26) // (8 * 6 * 3)
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n' * 3
    with pytest.raises(RequestError, match="more than the 2 that") as caught:
        read_form(b"multipart/form-data; boundary=b", form + b"--b--", bundle.signature, 2)
    assert caught.value.status == 413


def test_a_form_that_is_broken_or_makes_no_rows_is_refused(service: Service) -> None:
    file = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
    value = b'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n1\r\n'
    kind = "multipart/form-data; boundary=b"
    for body, header, status, says in (
        (file + b"--b--", "multipart/form-data", 400, "has no boundary"),
        (file, kind, 400, "does not end with its boundary"),
        (b"--b\r\n\r\nx\r\n--b--", kind, 400, "no Content-Disposition"),
        (b"--b--", kind, 422, "no parts"),
        (file + file + value + b"--b--", kind, 422, "a part for each row: 'image' 2, 'path' 1"),
        (file.replace(b"image", b"photo") + b"--b--", kind, 422, "send it as 'image'"),
        (value + b"--b--", kind, 422, "it is missing"),
        (file + b"--b--", kind, 422, "a file of 1 bytes is not an image: it can't be read"),
    ):
        answer = ask(service, "POST", "/predict", body, headers={"content-type": header})
        assert (answer.status_code, says in answer.text) == (status, True), answer.text


def test_a_file_in_a_form_is_kept_byte_for_byte() -> None:
    content = b"\r\n--bo\r\n\r\n--\r\n\x00\xff" * 3
    body = b'--bou\r\ncontent-disposition: FORM-DATA; name="a\\"b"; filename="c d"\r\n'
    body += b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--bou--\r\n"
    (part,) = split_form(b'multipart/form-data; charset=x; boundary="bou"', body)
    assert (part.name, part.file, part.content) == ('a"b', "c d", content)


def image_input(**more: object) -> Signature:
    values = {"name": "x", "column": "x", "kind": "image", "shape": ["rows", 2, 3]}
    return signature(Input.model_validate({**values, **more}))


def test_an_image_of_another_size_is_refused_unless_training_resized() -> None:
    text = base64.b64encode(as_bytes(Image.new("L", (6, 4), 7))).decode()
    with pytest.raises(RequestError, match="an image of 3×2 pixels in base64: it is 6×4 pixels"):
        make_encoder(image_input())([{"x": text}])
    found = make_encoder(image_input(decode={"resize": True}))([{"x": text}])["x"]
    np.testing.assert_array_equal(found, np.full((1, 2, 3), 7, np.float32))


def test_a_model_of_arrays_that_no_file_holds_takes_no_file() -> None:
    text = base64.b64encode(as_bytes(Image.new("L", (3, 2), 7))).decode()
    assert make_encoder(image_input())([{"x": text}])["x"].max() == 7
    with pytest.raises(RequestError, match="training had other values than the 0 to 255"):
        make_encoder(image_input(eight_bit=False))([{"x": text}])


def test_the_page_tells_of_the_form(service: Service) -> None:
    body = ask(service, "GET", "/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
    form = body["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"] == {"type": "string", "format": "binary"}
