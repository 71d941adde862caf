"""The two pictures of a run: there, the same twice, and showing what they should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image

from bayesdiff.core.layout import images_folder
from bayesdiff.corruption import detect_corruption
from bayesdiff.recording.plots import (
    AXIS_LABELS,
    GRID_COLUMNS,
    HEADER,
    LEFT,
    PROBED,
    _draw_verdict,
    axis_label,
    grid_steps,
    kept_step,
    plot_curve,
    plot_grid,
    plot_verdicts,
    read_probes,
    shown,
)
from bayesdiff.scoring.curve import curve_table, image_matrix, per_image
from bayesdiff.scoring.metrics import COLUMNS, METRICS
from bayesdiff.scoring.pixels import high_frequency_energy

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


def draw_curve(run: Path, values: list[float], title: str = "toy_dog", photos: tuple[Image.Image, ...] = ()) -> bytes:
    table = scores(values)
    verdict = detect_corruption(*image_matrix(per_image(table), "dino"), checkpoint_noise=0.01)
    plot_curve(run, curve_table(table), verdict, "dino", title, photos)
    return (run / "curve.png").read_bytes() + (run / "curve.svg").read_bytes()


def draw_grid(run: Path) -> bytes:
    plot_grid(run, STEPS, PROMPTS, [Image.new("RGB", (16, 16), "blue")], side=20)
    return (run / "grid.png").read_bytes()


def cell(sheet: Image.Image, column: int, row: int, top: int = 16, side: int = 16) -> tuple[int, int, int]:
    """The colour in the middle of a sample's cell, below ``top`` pixels of photographs."""
    return sheet.getpixel((LEFT + side * column + side // 2, top + HEADER + side * row + side // 2))  # type: ignore[return-value]


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
    assert {path.name for path in set(run.iterdir()) - before} in ({"curve.png", "curve.svg"}, {"grid.png"})


def test_the_grid_is_a_picture_and_the_same_twice(run: Path) -> None:
    first = draw_grid(run)
    assert draw_grid(run) == first
    with Image.open(run / "grid.png") as image:
        assert image.size == (LEFT + 16 * len(STEPS), HEADER + 16 * 3)


def test_the_grid_has_prompts_in_rows_steps_in_columns_and_photos_on_top(run: Path) -> None:
    draw_grid(run)
    with Image.open(run / "grid.png") as image:
        for row, colour in enumerate(COLOURS):
            for column in range(len(STEPS)):
                assert cell(image, column, row) == tuple(v + 5 * column for v in colour)
        assert image.getpixel((LEFT + 8, 8)) == (0, 0, 255)


def test_a_missing_sample_leaves_its_cell_white(run: Path) -> None:
    (images_folder(run, 50) / "prompt-01-image-00.png").unlink()
    draw_grid(run)
    with Image.open(run / "grid.png") as image:
        assert cell(image, 1, 1) == (255, 255, 255)


@pytest.mark.parametrize("count", [1, len(STEPS), 9, 30])
def test_every_photo_stands_in_the_grid(run: Path, count: int) -> None:
    """More of them than there are steps take more columns, and more rows."""
    plot_grid(run, STEPS, PROMPTS, [Image.new("RGB", (16, 16), (0, 0, 50 + i)) for i in range(count)], side=16)
    with Image.open(run / "grid.png") as image:
        columns = max(len(STEPS), min(count, GRID_COLUMNS))
        places = [(LEFT + 16 * (i % columns) + 8, 16 * (i // columns) + 8) for i in range(count)]
        assert [image.getpixel(place) for place in places] == [(0, 0, 50 + i) for i in range(count)]
        assert cell(image, 0, 0, top=16 * -(-count // columns)) == COLOURS[0]


@pytest.mark.parametrize("count", [GRID_COLUMNS, GRID_COLUMNS + 1, 40])
def test_a_long_run_is_thinned_out_and_keeps_its_ends(tmp_path: Path, count: int) -> None:
    steps = list(range(count))
    for step in steps:
        images_folder(tmp_path, step).mkdir(parents=True)
        Image.new("RGB", (20, 20), (step, 0, 0)).save(images_folder(tmp_path, step) / "prompt-00-image-00.png")
    plot_grid(tmp_path, steps, ["a dog"], [], side=20)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width == LEFT + 20 * GRID_COLUMNS
        columns = [cell(image, column, 0, top=0, side=20)[0] for column in range(GRID_COLUMNS)]
    assert (columns[0], columns[-1]) == (0, count - 1)
    assert columns == sorted(set(columns))


@pytest.mark.parametrize("count", [5, 13, 40, 201])
def test_the_checkpoint_to_keep_is_among_the_columns(count: int) -> None:
    for kept in range(count):
        steps = grid_steps(range(count), kept)
        assert kept in steps
        assert (steps[0], steps[-1], len(steps)) == (0, count - 1, min(count, GRID_COLUMNS))
        assert steps == sorted(set(steps))


def grainy(side: int) -> Image.Image:
    """Smooth shapes with fine noise: what a corrupted sample of Stable Diffusion looks like."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(smooth) + rng.normal(0, 25, (side, side, 3))).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("width", [200, 512, 768, 1024])
def test_a_grid_shows_no_grain_that_is_not_there(tmp_path: Path, width: int) -> None:
    """On the default path: the sample in the grid has the high-frequency energy of one that a proper filter shrank."""
    images_folder(tmp_path, 0).mkdir(parents=True)
    picture = grainy(width)
    picture.save(images_folder(tmp_path, 0) / "prompt-00-image-00.png")
    plot_grid(tmp_path, [0], ["a dog"], [picture])
    with Image.open(tmp_path / "grid.png") as sheet:
        side = sheet.width - LEFT
        tiles = [sheet.crop((LEFT, top, LEFT + side, top + side)) for top in (0, side + HEADER)]
    expected = high_frequency_energy(picture.resize((side, side), Image.Resampling.LANCZOS))
    left_out = high_frequency_energy(picture.resize((side, side), Image.Resampling.NEAREST))
    for tile in tiles:
        assert high_frequency_energy(tile) == pytest.approx(expected, rel=0.02)
    assert left_out > 1.2 * expected


@pytest.mark.parametrize(("width", "size"), [(16, 160), (32, 160), (64, 128), (100, 200), (160, 160), (161, 160), (512, 160)])
def test_a_small_picture_is_enlarged_by_whole_pixels(width: int, size: int) -> None:
    picture = grainy(width)
    found = shown(picture, 160)
    assert found.size == (size, size)
    if width <= 160:
        times = size // width
        assert np.array_equal(np.asarray(found), np.asarray(picture).repeat(times, 0).repeat(times, 1))


def artists(run: Path, monkeypatch: pytest.MonkeyPatch, values: list[float], photos: tuple[Image.Image, ...]) -> tuple[Figure, list[str]]:
    """The figure of a curve, and every text on it."""
    kept: list[Figure] = []
    monkeypatch.setattr("bayesdiff.recording.plots.save_figure", lambda figure, *_: kept.append(figure))
    table = scores(values)
    plot_curve(
        run, curve_table(table), detect_corruption(*image_matrix(per_image(table), "dino"), checkpoint_noise=0.01), "dino", "x", photos
    )
    return kept[0], [text.get_text() for text in kept[0].findobj(Text)]


def test_the_curve_shows_the_photo_and_the_checkpoint_to_keep(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure, texts = artists(run, monkeypatch, STAGE, (Image.new("RGB", (16, 16), (1, 2, 3)),))
    verdict = detect_corruption(*image_matrix(per_image(scores(STAGE)), "dino"), checkpoint_noise=0.01)
    titles = [text for text in texts if "\nstep " in text]
    assert any(f"step {verdict.best_step}" in title and "to keep" in title for title in titles)
    assert len(titles) == len({verdict.best_step, verdict.peak_step, verdict.trough_step, STEPS[0], STEPS[-1]} - {None})
    assert "training images" in texts
    assert tuple(figure.findobj(AxesImage)[0].get_array()[0, 0]) == (1, 2, 3)


def test_marks_on_the_curve_can_be_told_apart_and_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure, texts = artists(run, monkeypatch, STAGE, ())
    axes = figure.findobj(Axes)[0]
    marks = {line.get_label(): line.get_marker() for line in axes.lines}
    assert len(set(marks.values())) == len(marks) == 4
    assert any(label.startswith("checkpoint to keep (step") for label in marks)
    assert AXIS_LABELS["dino"] in texts
    assert not any("_" in text for text in texts)


def test_what_is_to_be_avoided_is_hatched_and_nothing_is_kept_that_is_not_better_than_the_base(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = detect_corruption(*image_matrix(per_image(scores(STAGE)), "dino"), checkpoint_noise=0.01)
    axes = Figure().subplots()
    _draw_verdict(axes, replace(found, avoid=((STEPS[2], STEPS[3]),), better_than_base=False), STEPS, STAGE)
    labels = axes.get_legend_handles_labels()[1]
    assert "to avoid" in labels and not any("keep" in label for label in labels)
    assert [patch.get_hatch() for patch in axes.patches if patch.get_label() == "to avoid"] == ["//"]
    assert kept_step(found) == found.best_step


@pytest.mark.parametrize("metric", METRICS)
def test_an_axis_says_a_metric_in_words(metric: str) -> None:
    assert AXIS_LABELS[metric] == axis_label(metric)
    assert "_" not in axis_label(metric)


ODD = ["Ca$$h", "$x_$", "$\\frac$", "[bold]", "_dog", "zoë 犬", "a\x00b", "\udc80", "%s {}", "\\"]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", ODD)
def test_any_text_can_stand_in_a_picture(run: Path, name: str) -> None:
    draw_curve(run, STAGE, title=f"{name}, 1 image(s)")
    plot_grid(run, STEPS, [name, f"a photo of {name}"], [], side=16)
    verdict = detect_corruption(STEPS, STAGE)
    plot_verdicts(run / "all.png", [(name, name, STEPS, np.array(STAGE)[:, None], verdict)])
    assert (run / "all.png").stat().st_size > 5000


def test_a_picture_of_a_run_without_samples_is_drawn(tmp_path: Path) -> None:
    draw_curve(tmp_path, STAGE)
    plot_grid(tmp_path, STEPS, PROMPTS, [])
    assert (tmp_path / "grid.png").exists()


def probes(run: Path) -> None:
    rows = [
        (step, weights, timestep, 0.5 / (1 + t), 0.6 / (1 + t), 0.01 * (1 + t), 1 / (1 + t))
        for t, step in enumerate(STEPS) for weights in ("kept", "ema") for timestep in (100.0, 900.0)
    ]  # fmt: skip
    columns = ["step", "weights", "timestep", "loss", "loss_empty", "gap", "loss_ratio"]
    pd.DataFrame(rows, columns=columns).to_csv(run / "probes.csv", index=False)


def test_the_probes_stand_below_the_curve(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr("bayesdiff.recording.plots.save_figure", lambda figure, *targets: figures.append(figure))
    probes(run)
    table = scores(RISE)
    verdict = detect_corruption(*image_matrix(per_image(table), "dino"), checkpoint_noise=0.01)
    plot_curve(run, curve_table(table), verdict, "dino", "toy_dog")
    panels = {axes.get_title(): axes for axes in figures[0].axes}
    loss, gap, ratio = (panels[title] for title in PROBED)
    assert [line.get_label() for line in loss.lines] == ["instance prompt", "instance prompt, ema", "empty prompt", "empty prompt, ema"]
    assert loss.lines[0].get_ydata() == pytest.approx(0.5 / np.arange(1, len(STEPS) + 1))
    assert len(gap.lines) == len(ratio.lines) == 2
    said = [place.yaxis.get_major_formatter()(value, 0) for place in (loss, gap, ratio) for value in (0.01, 1.0)]
    assert said == ["0.01", "1"] * 3, "numbers, and no powers that are set as formulas"


@pytest.mark.parametrize("content", ["", "step\n1\n"])
def test_damaged_probes_cost_no_picture(run: Path, content: str) -> None:
    (run / "probes.csv").write_text(content)
    assert read_probes(run) is None
    assert draw_curve(run, RISE)
