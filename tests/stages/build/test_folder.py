"""A folder of Hugging Face's, from the texts to predictions: what each stage takes from it."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from stages.build.folder import check_prepared, find_model, find_spec
from stages.build.params import BuildParams
from stages.common.errors import Problem, UserError
from stages.features.schema import Feature, Scale, Schema, Target, read_schema
from stages.features.words.tokens import find_tokenizer, with_places
from stages.model.model import load_model, read_spec
from stages.tools.predict_file import predict
from stages.tools.rehearse import rehearse
from stages.training.recipe import load_weights, override_model
from tests.conftest import ROOT, Project
from tests.support.huggingface import NUM_TOKENS, model_folder
from tests.support.samples import run_stages, set_params, small_project

BERT = "data/raw/bert"
WORDS = ["the", "film", "was", "a", "bit", "long", "and", "its", "story", "told", "by", "actors"]
CHANGES = {
    "prepare.key": None,
    "prepare.pretrained": BERT,
    "prepare.columns": {"review": {"kind": "text", "places": 12}},
    "build.model": {"name": "huggingface", "dropout": 0.0},
    "build.pretrained": BERT,
    "train.optimizer": {"name": "AdamW", "lr": 3e-3},
    "train.groups": [{"match": "output.*", "lr": 3e-2, "frozen": False}],
    "train.schedule": {"name": "warmup_cosine"},
    "train.early_stopping": None,
    "train.epochs": 20,
    "infer.export": ["onnx"],
}


def reviews(num_rows: int = 120) -> pl.DataFrame:
    """Texts in which one word tells the class, a number beside them, and a gap."""
    random = np.random.default_rng(0)
    texts: list[str | None] = []
    for row in range(num_rows):
        words = [*random.choice(WORDS, random.integers(5, 9)), ("dull", "lovely")[row % 2]]
        texts.append(" ".join(random.permutation(words)).capitalize() + ".")
    texts[3] = None
    return pl.DataFrame(
        {
            "review": texts,
            "stars": random.normal(size=num_rows),
            "y": [("bad", "good")[row % 2] for row in range(num_rows)],
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which all stages have run; after build the folder was gone."""
    table = reviews()
    project = small_project(tmp_path_factory.mktemp("reviews") / "project", table, CHANGES)
    model_folder(project.path / BERT, "bert", [text for text in table["review"] if text])
    run_stages(project, "prepare")
    # By itself, as DVC starts it: what it opens must be declared.
    said = project.run("python", "-m", "stages.build").stdout
    assert "39 matched, 2 missing: drawn anew" in said
    (project.path / BERT).rename(project.path / "data/raw/gone")
    run_stages(project, "tune", "train", "evaluate", "infer")
    (project.path / "data/raw/gone").rename(project.path / BERT)
    return project


def test_the_hidden_states_are_those_of_transformers_on_the_same_text(trained: Project) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = trained.path / BERT
    texts = [text for text in reviews(30)["review"] if text is not None]
    with contextlib.chdir(trained.path):
        model = load_model(Path("data/build"), "weights.safetensors")
        (feature,) = read_schema(Path("data/prepare")).of_kind("text")
    from stages.features.kinds.text import feed

    codes = torch.from_numpy(np.asarray(feed(feature, pl.Series("review", texts), "infer.input")))
    given = AutoTokenizer.from_pretrained(folder)(
        texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )
    found = model.body(  # type: ignore[operator]
        **next(iter(model._split(codes))),  # type: ignore[operator]
    ).last_hidden_state
    expected = AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state
    there = given["attention_mask"].bool()
    torch.testing.assert_close(found[there], expected[there], rtol=1e-5, atol=1e-5)


def test_it_learns_and_every_way_to_predict_gives_the_same(trained: Project) -> None:
    metrics = json.loads((trained.path / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert metrics["accuracy"] > 0.85
    notes = (trained.path / "data/infer/signature.json").read_text(encoding="utf-8")
    (described,) = (i for i in json.loads(notes)["inputs"] if i["kind"] == "text")
    assert described["num_tokens"] <= NUM_TOKENS
    with contextlib.chdir(trained.path):
        predict(Path("data/raw/table.parquet"), Path("p.parquet"))
    ours = pl.read_parquet(trained.path / "data/infer/predictions.parquet")
    theirs = pl.read_parquet(trained.path / "p.parquet")
    np.testing.assert_allclose(
        theirs["probability_good"], ours["probability_good"], rtol=1e-5, atol=1e-6
    )


def test_a_winner_of_tune_keeps_the_architecture(trained: Project) -> None:
    with contextlib.chdir(trained.path):
        built, schema = read_spec(Path("data/build")), read_schema(Path("data/prepare"))
        found = override_model(built, {"build.model.dropout": 0.4}, schema)
        assert found.arguments == {**built.arguments, "dropout": 0.4}
        before = load_file("data/build/weights.safetensors")
        weights = dict(load_weights(found, seed=9, number=1).named_parameters())
    assert torch.equal(weights["body.pooler.dense.weight"], before["body.pooler.dense.weight"])
    assert not torch.equal(weights["output.weight"], before["output.weight"])


def test_the_tokenizer_is_the_files_and_travels(trained: Project) -> None:
    (feature,) = read_schema(trained.path / "data/prepare").of_kind("text")
    own, number = find_tokenizer(trained.path / BERT)
    assert feature.tokenizer is not None
    assert with_places(feature.tokenizer, None) == own
    assert feature.num_tokens == number
    weights = load_file(trained.path / "data/build/weights.safetensors")
    source = load_file(trained.path / BERT / "model.safetensors")
    assert torch.equal(weights["body.pooler.dense.weight"], source["pooler.dense.weight"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "bert", "bert", WORDS)


def refused(folder: Path, feature: Feature) -> Problem:
    """The mistake that build tells of a column and a folder."""
    target = Target(name="y", task="regression")
    schema = Schema(key=None, features=[feature], target=target)
    section = BuildParams.model_validate(
        {"model": {"name": "huggingface"}, "pretrained": str(folder)}
    )
    with contextlib.chdir(ROOT), pytest.raises(UserError) as caught:
        find_spec(section, schema)
    (problem,) = caught.value.problems
    assert (problem.key, problem.allowed) == ("prepare.pretrained", (str(folder),))
    return problem


def test_texts_in_words_or_by_another_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    words = Feature(name="review", kind="text", words=["a", "b"], width=3)
    assert "is cut into words of this table" in refused(folder, words).message
    other, number = find_tokenizer(model_folder(tmp_path / "other", "bert", WORDS[:3]))
    tokens = Feature(name="review", kind="text", tokenizer=other, num_tokens=number, width=3)
    assert "is cut by another tokenizer than" in refused(folder, tokens).message


def test_images_of_another_scale_are_refused(tmp_path: Path) -> None:
    model_folder(tmp_path, "vit")
    image = Feature(name="image", kind="image", shape=[3, 8, 8], layout="CHW")
    assert "the scale of the images is that of the train rows" in refused(tmp_path, image).message
    other = image.model_copy(update={"scale": Scale(mean=[0.5] * 3, std=[0.5] * 3)})
    message = refused(tmp_path, other).message
    assert "was trained with mean [0.5, 0.4, 0.3] and std [0.2, 0.25, 0.3]" in message


def test_a_scale_that_prepare_normalize_says_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_folder(tmp_path, "vit")
    own = Scale(mean=[0.5] * 3, std=[0.5] * 3, said=True)
    image = Feature(name="image", kind="image", shape=[3, 8, 8], layout="CHW", scale=own)
    target = Target(name="y", task="regression")
    schema = Schema(key=None, features=[image], target=target)
    check_prepared(tmp_path, schema)
    assert "prepare.normalize goes before it" in capsys.readouterr().out
    (tmp_path / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    check_prepared(tmp_path, schema)
    assert capsys.readouterr().out == ""


def test_a_key_of_the_architecture_that_is_unknown_is_refused(folder: Path) -> None:
    """That of params.yaml; one of config.json may be of another version of transformers."""
    target = Target(name="y", task="regression")
    schema = Schema(key=None, features=[], target=target)

    def find(**config: object) -> None:
        model = {"name": "huggingface", "config": {"model_type": "bert", **config}}
        with contextlib.chdir(ROOT):
            find_model(BuildParams.model_validate({"model": model, "pretrained": None}), schema)

    find(hidden_size=16, attn_implementation="mine")
    with pytest.raises(UserError, match="bert has no 'hidden_sise'") as caught:
        find(hidden_sise=16)
    (problem,) = caught.value.problems
    assert problem.key == "build.model.config.hidden_sise"
    assert problem.suggestion == "hidden_size"
    for wrong in ({"hidden_size": "x"}, {"model_type": "clip"}):
        with pytest.raises(UserError, match=r"can't make a bert|tried here: .* vit") as caught:
            find(**wrong)
        assert caught.value.problems[0].key == "build.model.config"


def test_the_check_says_so_before_anything_runs(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.common.yamlfile import read_yaml

    project = Project(tmp_path / "project")
    ignored = shutil.ignore_patterns("stages", "prepare", "train", "evaluate", "infer", "tune")
    shutil.copytree(trained.path, project.path, ignore=ignored)
    shutil.copytree(ROOT / "stages/zoo", project.path / "stages/zoo")
    monkeypatch.chdir(project.path)

    def check() -> list[Problem]:
        return rehearse(read_yaml(Path("params.yaml")))

    assert check() == []
    set_params(project, {"prepare.pretrained": None})
    assert "is cut into words of this table" in check()[0].message
    set_params(project, {"prepare.pretrained": BERT})
    (project.path / BERT / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in check()[0].message
    set_params(project, {"build.pretrained": None, "prepare.pretrained": None})
    assert "has no architecture of its own" in check()[0].message
