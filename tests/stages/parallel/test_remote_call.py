"""A part's message to a worker that would not compute as the stage does."""

from dataclasses import replace
from pathlib import Path

import pytest

import stages.parallel.same_code as same_code
from stages.common.errors import UserError
from stages.parallel.remote_call import Answer, as_message, carry_out
from stages.parallel.same_code import Origin, Stage, describe_process

STAGE = Stage(("stages/parallel",), ("numpy", "polars"))


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    mark = tmp_path / "mark"
    mark.write_text("seen")
    return Origin(STAGE, describe_process(STAGE), mark, "seen")


def say(text: str) -> int:
    print(text)
    return len(text)


def test_the_answer_is_the_result_and_what_was_printed(origin: Origin) -> None:
    assert carry_out(as_message(origin, say, "four")) == Answer(4, "four\n")


def test_a_worker_that_came_late_with_other_libraries_computes_nothing(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = as_message(origin, say, "four")
    monkeypatch.setattr(same_code, "version", lambda name: {"numpy": "1.0"}.get(name, "2.0"))
    with pytest.raises(UserError, match=r"its numpy is 1\.0, and here it is ") as caught:
        carry_out(message)
    assert "its polars is 2.0, and here it is " in str(caught.value)
    # It is asked again for the next part: nobody has mended it meanwhile.
    with pytest.raises(UserError, match="that came late"):
        carry_out(message)
    monkeypatch.undo()
    assert carry_out(message).value == 4


def test_a_worker_that_came_late_and_sees_another_folder_computes_nothing(origin: Origin) -> None:
    origin.mark.unlink()
    with pytest.raises(UserError, match=f"it does not see {origin.mark.parent}, where"):
        carry_out(as_message(origin, say, "four"))
    process = replace(origin.process, digest="0", versions=(("machine", "aarch64"),))
    with pytest.raises(UserError, match=r"its machine is .*, and here it is aarch64"):
        carry_out(as_message(replace(origin, process=process), say, "four"))
