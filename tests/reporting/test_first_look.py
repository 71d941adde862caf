"""The demo's picture: who is in it, which steps, and that it is written."""

from __future__ import annotations

from pathlib import Path

from made_runs import made_run
from PIL import Image

from bayesdiff.reporting.first_look import chosen, draw_first_look
from bayesdiff.reporting.traces import arms_of


def test_it_shows_each_arm_once_with_its_samples(tmp_path: Path) -> None:
    traces = [arm for word in ("off", "on") for arm in arms_of(made_run(tmp_path / word, f"bnn={word}"))]
    assert [one.record.config["bnn"]["kind"] for one in chosen(traces) if one.record] == ["off", "gaussian"]
    target = tmp_path / "first_look.png"
    assert draw_first_look(traces, target)
    with Image.open(target) as image:
        assert image.width == 1100
        colours = image.convert("RGB").getcolors(1 << 24) or []
    assert len(colours) > 1000, "samples are shown, not only lines"


def test_nothing_is_written_where_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert not draw_first_look([], tmp_path / "first_look.png")
    assert not list(tmp_path.iterdir())
