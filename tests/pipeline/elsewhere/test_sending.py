"""The sender with a server that is played: what counts as lost, and what becomes of the refs."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Cancelling, Completed, Crashed, Running

from pipeline.common.dvc_repo import open_repo
from pipeline.common.git import git
from pipeline.elsewhere import follow, sending
from pipeline.elsewhere.data import push_outputs
from pipeline.elsewhere.follow import Follower
from pipeline.elsewhere.inputs import read_inputs
from pipeline.elsewhere.pool import start_run
from pipeline.elsewhere.refs import RESULT, STATE, find_refs, note_taken, push_ref, ref_of
from pipeline.elsewhere.result import commit_result
from pipeline.elsewhere.sending import ResultIsThere, Sending
from pipeline.elsewhere.take import UnusableResultError
from tests.conftest import Project
from tests.support.remotes import make_tiny

KEY = "0123456789" * 4
SILENT_SECONDS = 10.0


class Server:
    """One run on a server, the clock beside it, and the questions to both. Final."""

    def __init__(self, *states: State) -> None:
        self.now, self.states, self.gaps = 0.0, list(states), [1.0] * 100

    def ask(self, question: Callable[[Any], Any], _until: float | None = None) -> Any:
        return question(self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += self.gaps.pop(0)
        if len(self.states) > 1:
            self.states.pop(0)

    def read_flow_run(self, _run: UUID) -> Any:
        return SimpleNamespace(state=self.states[0])

    def read_logs(self, *_arguments: Any) -> list[Any]:
        return []

    def set_flow_run_state(self, _run: UUID, state: State, **_options: Any) -> None:
        self.states = [state]


def followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> State:
    """The last state of the server's run, as who follows it hears of it."""
    monkeypatch.setattr(follow, "time", server)
    link: Any = server
    follower = Follower(link, uuid4(), "gpu", print, SILENT_SECONDS, _heard=0.0, _polled=0.0)
    return follower.follow()


def test_silence_counts_only_while_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Server(Running())
    assert followed(silent, monkeypatch).is_crashed()
    assert SILENT_SECONDS < silent.now < SILENT_SECONDS + 3
    # The server is away for ten times as long; the run, which went on, ends soon after.
    away = Server(*[Running()] * 10, Completed())
    away.gaps[4] = 10 * SILENT_SECONDS
    assert followed(away, monkeypatch).is_completed()


def test_what_was_being_cancelled_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Running(), Cancelling(), Crashed(message="its worker is gone"))
    state = followed(server, monkeypatch)
    assert state.is_cancelled()
    assert state.message == "its worker is gone"
    assert followed(Server(Running(), Crashed()), monkeypatch).is_crashed()


def test_a_new_run_is_never_one_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (SimpleNamespace(id=uuid4(), state=Crashed()) for _ in range(2))
    keys = []
    for runs in ([], [first], [second, first], [second], [first]):
        client: Any = SimpleNamespace(
            read_flow_runs=lambda runs=runs, **_options: runs,
            create_flow_run_from_deployment=lambda *_, idempotency_key, **__: keys.append(
                idempotency_key
            ),
        )
        monkeypatch.setattr("pipeline.elsewhere.pool.ensure_deployment", lambda *_: None)
        start_run(client, "gpu", KEY, {"stage": "count"})
    # With the first deleted, after the second had ended, the third's, and not again the second's.
    assert len(set(keys)) == 3
    assert keys[3] == keys[2]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    project = make_tiny(tmp_path / "tiny")
    monkeypatch.chdir(project.path)
    before = signal.getsignal(signal.SIGTERM)
    yield project
    signal.signal(signal.SIGTERM, before)


def send(run_once: Callable[[Sending], State]) -> tuple[int, list[str]]:
    """The end of a sender whose runs in the pool are played by `run_once`, and its lines."""
    said: list[str] = []
    with open_repo(wait=True) as repo, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sending, "_run_once", run_once)
        patch.setattr(sending, "check_pool", lambda *_: None)
        inputs = read_inputs(repo, "count")
        commit = git(Path.cwd(), "rev-parse", "HEAD")
        one = Sending(repo, inputs, commit, KEY, "gpu", said.append, force=False, workers=0)
        one._link = Server()  # type: ignore[assignment]
        return one.run(), said


def put_result(project: Project) -> str:
    """Put the result at origin that a worker has for the state as it is."""
    project.repro("--single-item", "count")
    with open_repo(wait=True) as repo:
        push_outputs(repo, "count")
        commit = commit_result(repo, "count", git(project.path, "rev-parse", "HEAD"))
    push_ref(project.path, commit, ref_of(KEY, RESULT))
    for name in ("dvc.lock", "counted.txt", "metrics.json"):
        (project.path / name).unlink()
    return commit


@pytest.mark.parametrize("end", [Crashed(), Cancelling(), Completed(), ResultIsThere()])
def test_a_result_at_origin_is_taken_however_its_run_ended(tiny: Project, end: Any) -> None:
    note_taken(tiny.path, KEY[::-1])
    push_ref(tiny.path, "HEAD", ref_of(KEY[::-1], STATE))

    def run_once(_sending: Sending) -> State:
        put_result(tiny)
        if isinstance(end, Exception):
            raise end
        return end

    assert send(run_once)[0] == 0
    assert (tiny.path / "metrics.json").exists()
    assert find_refs(tiny.path, KEY) == {}
    # Of a sender that was killed once it had taken its result.
    assert find_refs(tiny.path, KEY[::-1]) == {}


def test_a_result_that_cannot_be_taken_blocks_nothing(tiny: Project) -> None:
    commit = put_result(tiny)
    (tiny.path / "source.txt").write_text("edited\n")
    with pytest.raises(UnusableResultError, match=r"other content than was sent: source\.txt"):
        send(lambda _sending: Completed())
    assert find_refs(tiny.path, KEY) == {}
    assert not (tiny.path / "dvc.lock").exists()
    # One that may still be taken stays.
    (tiny.path / "source.txt").write_text("one\n")
    push_ref(tiny.path, commit, ref_of(KEY, RESULT))
    assert send(lambda _sending: Completed())[0] == 0


def test_a_run_that_fails_leaves_no_refs(tiny: Project) -> None:
    def run_once(_sending: Sending) -> State:
        push_ref(tiny.path, "HEAD", ref_of(KEY, STATE))
        return Crashed(message="no sign of life")

    code, said = send(run_once)
    assert code == 1
    assert sum("sending it again" in line for line in said) == 3
    assert said[-2:] == ["count was not run in the work pool 'gpu'", "no sign of life"]
    assert find_refs(tiny.path, KEY) == {}
