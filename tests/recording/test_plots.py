"""The two pictures of a run: there, the same twice, and showing what they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bayesdiff.core.layout import images_folder
from bayesdiff.corruption import detect_corruption
from bayesdiff.recording.plots import GRID_COLUMNS, plot_curve, plot_grid
from bayesdiff.scoring.curve import curve_table, image_matrix, per_image
from bayesdiff.scoring.metrics import COLUMNS, METRICS

STEPS = [0, 50, 100, 200, 300, 400, 500, 600]
STAGE = [0.4, 0.6, 0.8, 0.5, 0.4, 0.5, 0.8, 0.82]
RISE = [0.4, 0.5, 0.6, 0.65, 0.7, 0.72, 0.74, 0.75]
COLOURS = [(200, 30, 30), (30, 200, 30)]
PROMPTS = ["a photo of qwe dog", "a qwe dog on top of the sidewalk in a crowded street"]


def scores(values: list[float]) -> pd.DataFrame:
    noise = 0.01 * np.random.default_rng(0).standard_normal((len(STEPS), 2, 2))
    cells = [(t, p, i) for t in range(len(STEPS)) for p in range(2) for i in range(2)]
    rows = [
        (STEPS[t], p, i, metric, "", float(values[t] + noise[t, p, i]) if metric == "dino" else 0.0)
        for t, p, i in cells
        for metric in METRICS
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with samples: every prompt in a colour of its own, brighter at later steps."""
    for t, step in enumerate(STEPS):
        images_folder(tmp_path, step).mkdir(parents=True)
        for p, colour in enumerate(COLOURS):
            for i in range(2):
                shade = tuple(v + 5 * t for v in colour)
                Image.new("RGB", (16, 16), shade).save(images_folder(tmp_path, step) / f"prompt-{p:02d}-image-{i:02d}.png")
    return tmp_path


def draw_curve(run: Path, values: list[float], title: str = "toy_dog") -> bytes:
    table = scores(values)
    plot_curve(run, curve_table(table), detect_corruption(*image_matrix(per_image(table), "dino"), checkpoint_noise=0.01), "dino", title)
    return (run / "curve.png").read_bytes()


def draw_grid(run: Path) -> bytes:
    plot_grid(run, STEPS, PROMPTS, [Image.new("RGB", (16, 16), "blue")], side=20)
    return (run / "grid.png").read_bytes()


def test_the_folders_of_samples_sort_as_their_steps() -> None:
    names = [images_folder(Path("run"), step).name for step in (0, 50, 1000, 20000)]
    assert names == sorted(names)


@pytest.mark.parametrize("values", [STAGE, RISE], ids=["stage", "rise"])
def test_the_curve_is_a_picture_and_the_same_twice(run: Path, values: list[float]) -> None:
    first = draw_curve(run, values)
    assert draw_curve(run, values) == first
    with Image.open(run / "curve.png") as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        assert min(image.size) > 500


def test_the_curve_shows_whether_there_is_a_stage(run: Path) -> None:
    def shaded(values: list[float]) -> int:
        draw_curve(run, values)
        with Image.open(run / "curve.png") as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        return int((np.abs(pixels - np.array([250, 229, 229])).max(-1) <= 4).sum())

    assert shaded(STAGE) > 5000 > 500 > shaded(RISE)


@pytest.mark.parametrize("count", [1, 3])
def test_the_curve_of_a_few_checkpoints_is_drawn_too(run: Path, count: int) -> None:
    table = scores(RISE)
    table = table[table["step"].isin(STEPS[:count])]
    plot_curve(run, curve_table(table), detect_corruption(*image_matrix(per_image(table), "dino")), "dino", "short")
    assert (run / "curve.png").stat().st_size > 5000


@pytest.mark.parametrize("draw", [lambda run: draw_curve(run, STAGE), draw_grid], ids=["curve", "grid"])
def test_a_picture_leaves_nothing_else_behind(run: Path, draw: Callable[[Path], bytes]) -> None:
    before = set(run.iterdir())
    draw(run)
    assert len(set(run.iterdir()) - before) == 1


def test_the_grid_is_a_picture_and_the_same_twice(run: Path) -> None:
    first = draw_grid(run)
    assert draw_grid(run) == first
    with Image.open(run / "grid.png") as image:
        assert image.size == (130 + 20 * len(STEPS), 18 + 20 * 3)


def test_the_grid_has_prompts_in_rows_steps_in_columns_and_photos_on_top(run: Path) -> None:
    draw_grid(run)
    with Image.open(run / "grid.png") as image:
        for row, colour in enumerate(COLOURS):
            for column in range(len(STEPS)):
                at = (130 + 20 * column + 10, 18 + 20 * (row + 1) + 10)
                assert image.getpixel(at) == tuple(v + 5 * column for v in colour)
        assert image.getpixel((140, 10)) == (0, 0, 255)


def test_a_missing_sample_leaves_its_cell_white(run: Path) -> None:
    (images_folder(run, 50) / "prompt-01-image-00.png").unlink()
    draw_grid(run)
    with Image.open(run / "grid.png") as image:
        assert image.getpixel((130 + 20 + 10, 18 + 40 + 10)) == (255, 255, 255)


@pytest.mark.parametrize("count", [GRID_COLUMNS, GRID_COLUMNS + 1, 40])
def test_a_long_run_is_thinned_out_and_keeps_its_ends(tmp_path: Path, count: int) -> None:
    steps = list(range(count))
    for step in steps:
        images_folder(tmp_path, step).mkdir(parents=True)
        Image.new("RGB", (4, 4), (step, 0, 0)).save(images_folder(tmp_path, step) / "prompt-00-image-00.png")
    plot_grid(tmp_path, steps, ["a dog"], [], side=20)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width == 130 + 20 * GRID_COLUMNS
        shown = [image.getpixel((130 + 20 * column + 10, 48))[0] for column in range(GRID_COLUMNS)]
    assert (shown[0], shown[-1]) == (0, count - 1)
    assert shown == sorted(set(shown))
