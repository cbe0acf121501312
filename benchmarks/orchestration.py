"""How long the orchestration takes beside the stages' own work.

    python -m benchmarks.orchestration        # about five minutes on two cores

- plan: `reprise plan` on this project after a run, and on a generated project of 500 stages
  that share 20 code files; beside them `dvc status` on this project, for the machine's mood;
- flow: `reprise run` against a running server, with nothing to do (its wall time, and inside the
  flow as Prefect has it) and for the whole pipeline, in turns with `dvc repro`;
- side by side: two independent stages of ten seconds, from the flow's first state to its last.
"""

import hashlib
import json
import statistics
import subprocess
import tempfile
from contextlib import chdir
from pathlib import Path

from benchmarks.overhead import in_turns, timed
from pipeline.server.prefect_api import request
from tests.conftest import copy_project

MANY = 500
CODE_FILES = 20
# Every tenth begins a chain anew.
CHAIN = 10


def main() -> None:
    """Measure all and print it."""
    with tempfile.TemporaryDirectory() as folder:
        plans(Path(folder))
        flows(Path(folder))


def plans(folder: Path) -> None:
    """Time `reprise plan`: fresh here and at 500 stages, and there with code that all use."""
    (folder / "project").mkdir()
    project = copy_project(folder / "project").path
    timed(["dvc", "repro"], project)
    many = many_stages(folder / "many")
    plan = ["reprise", "plan"]
    reprise, dvc = in_turns(lambda: timed(plan, project), lambda: timed(["dvc", "status"], project))
    print(
        f"\nreprise plan: {reprise:.2f} s (bar: 1.5); dvc status {dvc:.2f} s: "
        f"{reprise / dvc:.2f} times"
    )
    code = many / "stages/code0.py"
    text = code.read_text(encoding="utf-8")

    def stale() -> float:
        code.write_text(f"{text}Y = 1\n", encoding="utf-8")
        seconds = timed(plan, many)
        code.write_text(text, encoding="utf-8")
        return seconds

    fresh, changed = in_turns(lambda: timed(plan, many), stale)
    print(
        f"reprise plan at {MANY} stages: {fresh:.2f} s, all of them stale {changed:.2f} s (bar: 6)"
    )


def flows(folder: Path) -> None:
    """Time `reprise run` beside `dvc repro`, and two stages beside each other."""
    project = folder / "project"
    timed(["reprise", "up", "--no-worker", "--no-tensorboard"], project)
    try:
        no_op, bare = in_turns(
            lambda: timed(["reprise", "run"], project), lambda: timed(["dvc", "repro"], project)
        )
        inside = last_flow_seconds(project)
        print(f"\nreprise run with nothing to do: {no_op:.2f} s (bar: 6), dvc repro {bare:.2f} s")
        print(f"  inside the flow: {inside:.2f} s (bar: 3)")
        pairs = [
            (
                timed(["reprise", "run", "--force"], project),
                timed(["dvc", "repro", "--force"], project),
            )
            for _ in range(3)
        ]
        reprise, dvc = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        print(
            f"the whole pipeline: reprise run {reprise:.1f} s, dvc repro {dvc:.1f} s: ",
            end="",
        )
        print(f"{reprise - dvc:+.1f} s (bar: +8)")
        lines = ["stages:"]
        for name in ("left", "right"):
            lines += [f"  {name}:", "    cmd: sleep 10", "    always_changed: true"]
        (project / "dvc.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        timed(["reprise", "run"], project)
        print(f"two stages of ten seconds: {last_flow_seconds(project):.1f} s (bar: 14)")
    finally:
        timed(["reprise", "down"], project)


def last_flow_seconds(project: Path) -> float:
    """From the first state to the last of the newest flow run, as the server has it."""
    services = json.loads((project / ".reprise/up.json").read_text(encoding="utf-8"))["services"]
    address = next(each["address"] for each in services if each["name"] == "server")
    body = {"sort": "START_TIME_DESC", "limit": 1}
    with chdir(project):  # where what logs in is found
        (run,) = request(f"{address}/api", "/flow_runs/filter", body)
    seconds: float = run["total_run_time"]
    return seconds


def many_stages(target: Path) -> Path:
    """A project of 500 stages as after `dvc repro`, which would take ten minutes to run."""
    cache = target / ".dvc/cache/files/md5"
    for part in ("stages", "out"):
        (target / part).mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)
    timed(["dvc", "init", "--quiet"], target)
    code = {f"stages/code{number}.py": f"X = {number}\n" for number in range(CODE_FILES)}
    for name, text in code.items():
        (target / name).write_text(text, encoding="utf-8")
    params, stages, lock = ["seed: 0"], ["stages:"], ["schema: '2.0'", "stages:"]
    for number in range(MANY):
        name, content = f"stage{number}", f"{number}\n"
        inputs = {f"out/{number - 1}.txt": f"{number - 1}\n"} if number % CHAIN else {}
        inputs |= dict(sorted(code.items()))
        params.append(f"{name}: {{rate: 0.1, epochs: 3, widths: [1, 2, 3]}}")
        command = f"    cmd: echo {number} > out/{number}.txt"
        stages += [f"  {name}:", command, f"    deps: [{', '.join(inputs)}]"]
        stages += [f"    params: [seed, {name}]", f"    outs: [out/{number}.txt]"]
        lock += [f"  {name}:", command, "    deps:"]
        for path, text in inputs.items():
            lock += locked(path, text)
        lock += ["    params:", "      params.yaml:", "        seed: 0", f"        {name}:"]
        lock += ["          rate: 0.1", "          epochs: 3", "          widths: [1, 2, 3]"]
        lock += ["    outs:", *locked(f"out/{number}.txt", content)]
        (target / f"out/{number}.txt").write_text(content, encoding="utf-8")
        digest = md5(content)
        (cache / digest[:2]).mkdir(parents=True, exist_ok=True)
        (cache / digest[:2] / digest[2:]).write_text(content, encoding="utf-8")
    for file, lines in {"params.yaml": params, "dvc.yaml": stages, "dvc.lock": lock}.items():
        (target / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (target / "out/.gitignore").write_text("/*.txt\n", encoding="utf-8")
    subprocess.run(["git", "add", "--all"], cwd=target, check=True)
    subprocess.run(
        ["git", "-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "-qm", "many"],
        cwd=target,
        check=True,
    )
    return target


def locked(path: str, text: str) -> list[str]:
    """The lines of `dvc.lock` for a file."""
    head = f"    - path: {path}"
    return [head, "      hash: md5", f"      md5: {md5(text)}", f"      size: {len(text)}"]


def md5(text: str) -> str:
    """The MD5 of a text, as DVC names its content."""
    return hashlib.md5(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
