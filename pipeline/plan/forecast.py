"""Goes through the stages in topological order and says what each would do, and leave.

DVC compares each stage with what lies in the working folder now. Here a stage is compared with
what its upstream will have left: a restored one's outputs are known by their hashes, so what
follows may be fresh; one that must run leaves its downstream waiting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.plan.reasons import NO_PATH, Reason, Reasons, differing_params, null_keys
from pipeline.plan.remote_outputs import read_remote_outputs
from pipeline.plan.run_key import has_key, is_params, is_plain, params_hash, run_key
from pipeline.plan.working_tree import Content, Contents
from stages.common.yamlfile import read_yaml
from stages.runtime.storage_errors import explained

FRESH, RESTORABLE, STALE = "fresh", "restorable", "stale"


@dataclass(frozen=True)
class Waiting:
    """Content that nobody knows before these stages have run."""

    stages: tuple[str, ...]


@dataclass(frozen=True)
class StageForecast:
    """The decision on a stage and its reasons.

    `inputs` are what its deps will hold, as far as known.
    """

    state: str
    reasons: tuple[Reason, ...]
    inputs: Mapping[str, Content]


@dataclass
class Forecast:
    """Judges stages one by one, upstream first.

    With `lock_only` the question is whether `dvc.lock` is current: cached outputs that are not
    here count as there, nothing is taken from the cache, and what always runs is no reason.
    With `accepting`, a stage whose code differs in comments alone counts as keeping its outputs.
    With `merging`, the stages' lock entries come from several files: see
    `pipeline.commands.merge_lock`.
    """

    repo: Any
    lock_only: bool = False
    accepting: bool = False
    merging: bool = False
    contents: Contents = field(init=False)
    reasons: Reasons = field(init=False)
    remote_outputs: Mapping[str, str] = field(default_factory=read_remote_outputs)
    _left: dict[str, Content | Waiting] = field(default_factory=dict)
    _producers: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.contents = Contents(self.repo)
        self.reasons = Reasons(self.repo, self.contents)

    def judge(self, stage: Any) -> StageForecast:
        """The state of `stage` and why; everything upstream of it must be judged before."""
        if stage.is_data_source:
            return self._judge_source(stage)
        why, found = self.judge_inputs(stage)
        if _is_locked(stage):
            why += [reason for out in stage.outs for reason in self._judge_out(out)]
        state, outs = STALE, None
        if not why or (self.accepting and all(reason.kind == "comments" for reason in why)):
            state, outs = FRESH if not why else STALE, stage.outs
        elif not self.lock_only:
            outs = self.restorable(stage, found, why)
            state = STALE if outs is None else RESTORABLE
        self.leave(stage, outs)
        return StageForecast(state, tuple(dict.fromkeys(why)), found)

    def judge_inputs(self, stage: Any) -> tuple[list[Reason], dict[str, Content]]:
        """The reasons in inputs or command that make `stage` stale; what each input will hold."""
        found: dict[str, Content] = {}
        why = self._judge_deps(stage, found)
        if _is_locked(stage):
            return why + self._judge_command(stage), found
        # All of it is new: only what stands in the way of running is worth a word.
        why = [r for r in why if r.kind in ("upstream", "always") or r.new is None]
        return [Reason("never run", ""), *why], found

    def leave(self, stage: Any, outs: Any) -> None:
        """Note what `stage` leaves: `outs` with their hashes, or, of None, what nobody knows."""
        for out in stage.outs:
            here = self._here(out) if stage.frozen and out.protocol == "local" else None
            self._left[out.fs_path] = here or Waiting((stage.addressing,))
        for out in outs or []:
            if out.hash_info:
                self._left[out.fs_path] = Content(out.hash_info, out.meta)

    def _judge_source(self, stage: Any) -> StageForecast:
        """A `.dvc` file: `dvc repro` takes what lies there, and stops when nothing does."""
        why = []
        if stage.is_import and not stage.frozen and not self.lock_only:
            why.append(Reason("always", ""))
        for out in stage.outs:
            here = self._here(out)
            if here is not None:
                self._left[out.fs_path] = here
                if here.hash != out.hash_info:
                    why.append(Reason("file", str(out), out.hash_info.value, here.hash.value))
            elif out.hash_info:
                self._left[out.fs_path] = Content(out.hash_info, out.meta)
                if not self.lock_only:
                    why.append(Reason("output", str(out), new="missing"))
            else:
                self._left[out.fs_path] = Waiting((stage.addressing,))
                why.append(Reason("never run", ""))
        return StageForecast(STALE if why else FRESH, tuple(why), {})

    def _judge_deps(self, stage: Any, found: dict[str, Content]) -> list[Reason]:
        if stage.frozen:
            return []
        why = []
        if not self.lock_only and (stage.is_callback or stage.always_changed):
            why.append(Reason("always", ""))
        for dep in stage.deps:
            if is_params(dep):
                values = self.contents.params(dep)
                why += differing_params(dep, values)
                found[dep.def_path] = Content(params_hash(values), None)
            elif not is_plain(dep):
                why += _judge_elsewhere(dep, found)
            else:
                why += self._judge_file(dep, found)
        return why

    def _judge_file(self, dep: Any, found: dict[str, Content]) -> list[Reason]:
        content = self._expect(dep)
        if isinstance(content, Waiting):
            return [Reason("upstream", name) for name in content.stages]
        if content is None:
            return [Reason("file", str(dep), dep.hash_info.value)]
        found[dep.def_path] = content
        if content.hash == dep.hash_info:
            return []
        if str(dep) == NO_PATH and not dep.hash_info and (keys := null_keys(dep.stage.name)):
            return [Reason("null", " or ".join(keys), None, content.hash.value)]
        if self.producers_of(dep.fs_path) or not dep.hash_info:
            return [Reason("file", str(dep), dep.hash_info.value, content.hash.value)]
        return self.reasons.of_file(dep, content)

    def _expect(self, dep: Any) -> Content | Waiting | None:
        """The content of `dep` when its stage's turn comes."""
        outs = self.producers_of(dep.fs_path)
        if not outs:
            return self.contents.at(dep.fs_path, dep.hash_name)
        left = [self._left[out.fs_path] for out in outs if out.fs_path in self._left]
        waiting = [
            name for content in left if isinstance(content, Waiting) for name in content.stages
        ]
        if waiting:
            return Waiting(tuple(dict.fromkeys(waiting)))
        if outs[0].fs_path == dep.fs_path:
            return left[0]
        if all(self._is_here(out) for out in outs):
            return self.contents.at(dep.fs_path, dep.hash_name)
        # A part of an output that is not here, or a folder around several.
        part = self._part_of(outs[0], dep) if len(outs) == 1 else None
        if part is None and self.lock_only and not self.merging and dep.hash_info:
            return Content(dep.hash_info, dep.meta)
        return part or Waiting(tuple(dict.fromkeys(out.stage.addressing for out in outs)))

    def producers_of(self, path: str) -> list[Any]:
        """The outputs of stages at, around or below `path`."""
        if path not in self._producers:
            from dvc.fs import localfs

            key, trie = localfs.parts(path), self.repo.index.outs_trie
            outs = [node.value for node in trie.prefixes(key)]
            if trie.has_subtrie(key):
                outs += [out for out in trie.values(prefix=key) if out not in outs]
            self._producers[path] = outs
        return self._producers[path]

    def _is_here(self, out: Any) -> bool:
        here, left = self._here(out), self._left.get(out.fs_path)
        return here is not None and isinstance(left, Content) and here.hash == left.hash

    def _part_of(self, out: Any, dep: Any) -> Content | None:
        """The content at a path inside a folder that lies in the cache."""
        from dvc_data.hashfile.tree import Tree

        left = self._left[out.fs_path]
        assert isinstance(left, Content)
        if not left.hash.isdir or not out.fs.isin(dep.fs_path, out.fs_path):
            return None
        key = out.fs.relparts(dep.fs_path, out.fs_path)
        try:
            tree = Tree.load(out.cache, left.hash)
        except FileNotFoundError:
            return None
        file = tree.get(key)
        if file is not None:
            return Content(file[1], file[0])
        inner = tree.get_obj(out.cache, key)
        return None if inner is None else Content(inner.hash_info, dep.meta, inner)

    def _here(self, out: Any) -> Content | None:
        if self.repo.dvcignore.is_ignored(out.fs, out.fs_path, ignore_subrepos=False):
            return None
        return self.contents.at(out.fs_path, out.hash_name)

    def _judge_command(self, stage: Any) -> list[Reason]:
        if not stage.cmd_changed:
            return []
        if self.merging:
            return [Reason("command", "", new=_one_line(stage.cmd))]
        lock = Path(stage.path).with_suffix(".lock")
        entry = ((read_yaml(lock) or {}).get("stages") or {}).get(stage.name) or {}
        return [Reason("command", "", _one_line(entry.get("cmd")), _one_line(stage.cmd))]

    def _judge_out(self, out: Any) -> list[Reason]:
        if out.protocol != "local":
            return [Reason("output", str(out), new=status) for status in out.status().values()]
        if not out.hash_info:
            return [Reason("output", str(out), new="not in dvc.lock")]
        here = self._here(out)
        excused = out.use_cache and (self.lock_only or self._is_remote(out))
        gone = out.use_cache and not self.lock_only and out.changed_cache()
        if here is None:
            state = "missing, and not in the cache" if gone else "missing"
            return [] if excused else [Reason("output", str(out), new=state)]
        if here.hash != out.hash_info:
            return [Reason("output", str(out), out.hash_info.value, "modified")]
        return [Reason("output", str(out), new="not in the cache")] if gone else []

    def _is_remote(self, out: Any) -> bool:
        return bool(self.remote_outputs.get(str(out)) == out.hash_info.value)

    def restorable(self, stage: Any, found: Mapping[str, Content], why: list[Reason]) -> Any:
        """The outputs that `dvc repro` would bring back from its cache, None if it would run."""
        if any(reason.kind in ("upstream", "always") for reason in why) or not has_key(stage):
            return None
        if any(dep.def_path not in found for dep in stage.deps):
            return None
        from dvc.stage.serialize import to_single_stage_lockfile

        if all(reason.kind == "output" for reason in why) and all(o.hash_info for o in stage.outs):
            entry = to_single_stage_lockfile(stage)
        else:
            entry = self._find_run(stage, found)
        if entry is None:
            return None
        # As DVC does it: of the metrics too, the cache must have a copy.
        restored = self.repo.stage_cache._create_stage(entry, wdir=stage.wdir)
        return restored.outs if restored.outs_cached() else None

    def _find_run(self, stage: Any, found: Mapping[str, Content]) -> Any:
        """The run-cache's newest entry for `stage` with the inputs `found`."""
        runs = self.repo.stage_cache
        key = run_key(stage, found)
        folder = Path(runs._get_cache_dir(key))
        if not folder.is_dir():
            return None
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime, default=None)
        return None if newest is None else runs._load_cache(key, newest.name)


def _judge_elsewhere(dep: Any, found: dict[str, Content]) -> list[Reason]:
    """The change of what lies in object storage. Raises UserError where that can't be asked."""
    with explained(str(dep), None, None):
        store = dep.fs.fs
    with explained(str(dep), None, store):
        status = dep.status()
        if "deleted" not in status.values():
            found[dep.def_path] = Content(dep.get_hash(), None)
    old = dep.hash_info.value
    return [
        Reason("file", str(dep), old, None if state == "deleted" else state)
        for state in status.values()
    ]


def _is_locked(stage: Any) -> bool:
    """Check whether `dvc.lock` has an entry of the stage.

    What neither reads nor writes has none to miss.
    """
    items = [*stage.deps, *stage.outs]
    return not items or any(item.hash_info for item in items)


def _one_line(command: Any) -> str:
    return "; ".join(command) if isinstance(command, list) else str(command)
