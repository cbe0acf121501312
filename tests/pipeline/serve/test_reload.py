"""A new model is taken while the old one is served."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from pipeline.serve import service as serving_now
from pipeline.serve.bundle import FILES, Bundle, load_bundle
from pipeline.serve.service import Service, Settings
from tests.conftest import Project
from tests.support.serving import ask, place, until

Watched = tuple[Service, list[str], Bundle]


@pytest.fixture
def watched(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """A service of a copy of the model in `tmp_path`, what is said of reloads, and the model."""
    monkeypatch.setattr(serving_now, "LOOK_SECONDS", 0.02)
    place(project.path / "data/infer", tmp_path)
    bundle = load_bundle(tmp_path)
    return Service(Settings(tmp_path), bundle), [], bundle


def while_watched(watched: Watched, story: Callable[[], Coroutine[None, None, None]]) -> None:
    """Let something happen to the model's files while the service looks at them."""
    service, said, _ = watched

    async def both() -> None:
        task = asyncio.create_task(serving_now.watch(service, said.append))
        await story()
        assert not task.done()
        task.cancel()

    asyncio.run(both())


def test_a_new_model_is_taken_whole_and_a_broken_one_is_told_of(
    project: Project, other: Path, tmp_path: Path, watched: Watched
) -> None:
    service, said, old = watched

    async def story() -> None:
        for name in FILES:
            (tmp_path / name).unlink()
        await asyncio.sleep(0.15)
        place(other, tmp_path, FILES[0])
        await asyncio.sleep(0.15)
        # Nothing, or one of two, is no model; and no news.
        assert (service.bundle, said) == (old, [])
        place(other, tmp_path, FILES[1])
        await until(lambda: service.bundle is not old)
        new = service.bundle
        assert [each.column for each in new.signature.inputs] == ["town", "smoker"]
        assert "its columns are others" in said[0]
        # A signature that stays beside another model's graph.
        place(project.path / "data/infer", tmp_path, FILES[0])
        await until(lambda: len(said) == 2)
        assert "do not belong together" in said[1]
        (tmp_path / FILES[1]).write_text("{}")
        await until(lambda: len(said) == 3)
        assert service.bundle is new
        # The same bytes again, later: nothing is loaded.
        place(other, tmp_path)
        await asyncio.sleep(0.3)
        assert (service.bundle, len(said)) == (new, 3)

    while_watched(watched, story)
    text = service.metrics.text().decode()
    assert 'reprise_reloads_total{result="taken"} 1.0' in text
    assert 'reprise_reloads_total{result="broken"} 2.0' in text
    assert old.version not in text
    (answer,) = ask(
        service, "POST", "/predict", {"rows": [{"town": "Oslo", "smoker": None}]}
    ).json()["predictions"]
    assert list(answer) == ["prediction", "low", "high"]
    assert answer["low"] < answer["prediction"] < answer["high"]


def test_a_pipe_in_the_models_place_is_told_of_and_ends_no_reload(
    project: Project,
    other: Path,
    tmp_path: Path,
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service, said, old = watched

    async def story() -> None:
        for name in FILES:
            (tmp_path / name).unlink()
            os.mkfifo(tmp_path / name)
            await until(lambda: bool(said))
            assert "is no regular file" in said.pop()
            place(project.path / "data/infer", tmp_path, name)
        # A mistake of ours at one model is no reason to look for no other.
        with monkeypatch.context() as broken:
            broken.setattr(serving_now, "load_bundle", lambda _: {}["x"])
            place(other, tmp_path)
            await until(lambda: bool(said))
            assert "KeyError" in said.pop()
        place(other, tmp_path)
        await until(lambda: service.bundle is not old)

    while_watched(watched, story)
