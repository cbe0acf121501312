"""Decode rate: a column of image files as prepare reads it, and a bare loop of Pillow.

    python -m benchmarks.images [--images 400] [--rounds 5]

The loop opens, converts and resizes in as many processes as prepare has threads, started before the
clock; the two take turns. A ratio below 1 is in prepare's favour. Images are made here.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from PIL import Image

from stages.formats.images.load import load_column
from stages.parallel.thread_map import num_threads

# What the files are, their width and height, and the height and width that they are brought to.
CASES: tuple[tuple[str, str, tuple[int, int], tuple[int, int] | None], ...] = (
    ("photographs to 64×64", "jpg", (640, 480), (64, 64)),
    ("photographs to 224×224", "jpg", (640, 480), (224, 224)),
    ("drawings to 64×64", "png", (320, 240), (64, 64)),
    ("thumbnails as they are", "jpg", (96, 96), None),
    ("digits as they are", "png", (28, 28), None),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{num_threads()} threads or processes, {options.images} images")
    print("| images | prepare | Pillow's loop | ratio |\n|---|---|---|---|")
    for name, suffix, size, target in CASES:
        with tempfile.TemporaryDirectory() as folder:
            names = _write(Path(folder), suffix, size, options.images)
            ours, theirs = _measure(Path(folder), names, target, options.rounds)
        ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
        rates = [options.images / median(seconds) for seconds in (ours, theirs)]
        print(f"| {name} | {rates[0]:,.0f} /s | {rates[1]:,.0f} /s | {ratio:.2f} |", flush=True)


def _write(folder: Path, suffix: str, size: tuple[int, int], num: int) -> list[str]:
    """Smooth images with some noise, as photographs compress."""
    random = np.random.default_rng(0)
    names = []
    for number in range(num):
        coarse = random.integers(0, 255, (8, 8, 3)).astype(np.uint8)
        whole = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        noise = random.integers(-6, 6, (size[1], size[0], 3))
        pixels = (np.asarray(whole) + noise).clip(0, 255).astype(np.uint8)
        names.append(f"{number}.{suffix}")
        Image.fromarray(pixels).save(folder / names[-1])
    return names


def _bare(path: str, size: tuple[int, int] | None) -> int:
    with Image.open(path) as image:
        found = image.convert("RGB")
        if size is not None:
            found = found.resize(size[::-1], Image.Resampling.BICUBIC)
        return np.asarray(found).shape[0]


def _measure(
    folder: Path, names: list[str], size: tuple[int, int] | None, rounds: int
) -> tuple[list[float], list[float]]:
    column = pl.Series("image", names)
    paths = [(str(folder / name), size) for name in names]
    with get_context("spawn").Pool(num_threads()) as pool:
        share = len(names) // num_threads() // 4 + 1

        def ours() -> None:
            load_column(column, folder, size, "prepare.source")

        def theirs() -> None:
            pool.starmap(_bare, paths, share)

        for work in (ours, theirs):
            work()
        pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
