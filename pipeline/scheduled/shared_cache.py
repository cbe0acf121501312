"""Shared with a clone: DVC's cache, remotes with credentials, checkpoints."""

from pathlib import Path
from typing import Any

from stages.common.errors import UserError

CHECKPOINTS = Path(".reprise/checkpoints")
BESIDE_CACHE = "reprise-checkpoints"
SITE_CACHE = Path(".reprise/dvc-site-cache")


def share_cache(base: Path, clone: Path) -> None:
    """Write the clone's `.dvc/config.local` and its link to the checkpoints.

    Raises UserError for a configuration that DVC does not accept.
    """
    from dvc.config import ConfigError

    try:
        _share_cache(base, clone)
    except ConfigError as error:
        raise UserError(
            f"DVC does not accept its configuration in {base / '.dvc'}: {error}"
        ) from None


def _share_cache(base: Path, clone: Path) -> None:
    from dvc.config import Config

    settings = Config(dvc_dir=str(base / ".dvc"))
    cache = cache_folder(base)
    local = Config(dvc_dir=str(clone / ".dvc"), validate=False)
    path = Path(local.files["local"])
    path.touch(mode=0o600)
    with local.edit("local") as own:
        _merge(own, _remotes_of(clone, base))
        _merge(own, settings.load_one("local"))
        own["cache"]["dir"] = str(cache)
        # What DVC remembers of the clone goes with the clone.
        own["core"]["site_cache_dir"] = str(clone / SITE_CACHE)
    _link_checkpoints(base, clone, cache)


def cache_folder(base: Path) -> Path:
    """The folder of the repository's DVC cache, by any of its configurations."""
    from dvc.config import Config

    folder = Config(dvc_dir=str(base / ".dvc"))["cache"].get("dir")
    return Path(str(folder)) if folder else base / ".dvc" / "cache"


def checkpoints_folder(base: Path, cache: Path) -> Path:
    """The folder for checkpoints of the clones of `base`: beside the cache that they share."""
    if cache.resolve().is_relative_to(base.resolve()):
        return base / CHECKPOINTS
    return cache.parent / BESIDE_CACHE


def _remotes_of(clone: Path, base: Path) -> dict[str, Any]:
    """The remotes of the clone's own `.dvc/config`, those that are paths as seen from `base`."""
    from dvc.config import Config

    file = clone / ".dvc" / "config"
    found = Config.load_file(str(file)) if file.exists() else {}
    remotes = {}
    for name, remote in found.get("remote", {}).items():
        url = str(remote.get("url", ""))
        if url and "://" not in url and not Path(url).expanduser().is_absolute():
            remotes[name] = {"url": str((base / ".dvc" / url).resolve())}
    return {"remote": remotes}


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _link_checkpoints(base: Path, clone: Path, cache: Path) -> None:
    shared = checkpoints_folder(base, cache)
    shared.mkdir(parents=True, exist_ok=True)
    link = clone / CHECKPOINTS
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(shared.resolve(), target_is_directory=True)
