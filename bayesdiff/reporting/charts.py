"""The charts of a page, as Bokeh models without numbers: the page's script fills them from the page's own data.

So every number stands in a page once, and one chart serves every metric. Names and tags of the models are what the script
finds them by: ``now``, ``own-level``, ``line-0`` …, ``band-0`` …, ``kept-0`` …, ``avoid-0`` …; ``tags[1]`` is the number of an arm.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure as Figure

MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")
DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot", "solid")
"""Of arm 0, 1, …: what tells arms apart without colour. The sixth has a marker of its own."""
LIGHT = ("#0072b2", "#c04f00", "#007a5a", "#a8558a", "#8a6500", "#4a5568")
DARK = ("#56b4e9", "#f0965a", "#2fc59b", "#e3a0c8", "#e8c64a", "#b8c4d6")
"""Hues of Okabe and Ito's palette (2008), which most colour-blind people tell apart, darkened and lightened for the two grounds."""
SPANS = 8
"""Most ranges of steps that a chart shades; one of several arms, half as many of each."""


@cache
def library() -> str:
    """The code of Bokeh's charts for the browser, as the installed package ships it."""
    import bokeh

    return (Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js").read_text(encoding="utf-8")


def curve_chart(arms: int, name: str = "curve") -> dict[str, Any]:
    """Mean curves with bands, kept checkpoints as stars, shaded ranges, the photographs' own level, and a line at the step shown."""
    from bokeh.models import ColumnDataSource

    chart = _base(name, 380)
    _ranges(chart, max(SPANS, SPANS // 2 * arms))
    for i in range(arms):
        source = _source(i)
        kept = ColumnDataSource({"x": [0], "y": [0]}, name=f"kept-source-{i}")
        tags: list[Any] = ["arm", i]
        chart.varea("x", "low", "high", source=source, fill_alpha=0.16, name=f"band-{i}").glyph.tags = tags
        line = chart.line("x", "y", source=source, line_width=2, line_dash=DASHES[i % len(DASHES)], name=f"line-{i}")
        points = chart.scatter("x", "y", source=source, size=7, marker=MARKERS[i % len(MARKERS)], name=f"points-{i}")
        star = chart.scatter("x", "y", source=kept, size=19, marker="star", line_width=1.5, name=f"kept-{i}")
        for drawn in (line, points, star):
            drawn.glyph.tags = tags
        star.glyph.tags = ["arm", i, "kept"]
    return _item(chart)


def gap_chart(arms: int) -> dict[str, Any]:
    """Paired differences from the first arm with their intervals; a line at 0 and one at the step shown."""
    from bokeh.models import Span

    chart = _base("gaps", 280)
    chart.add_layout(Span(location=0, dimension="width", line_width=1, name="zero", tags=["ink"]))
    for i in range(1, arms):
        source = _source(i)
        line = chart.line("x", "y", source=source, line_width=1.5, line_dash=DASHES[i % len(DASHES)], name=f"line-{i}")
        point = chart.scatter("x", "y", source=source, size=7, marker=MARKERS[i % len(MARKERS)], name=f"points-{i}")
        line.glyph.tags = point.glyph.tags = ["arm", i]
        chart.segment("x", "low", "x", "high", source=source, line_width=1.4, name=f"interval-{i}").glyph.tags = ["arm", i]
    return _item(chart)


def forest_chart(rows: int) -> dict[str, Any]:
    """Differences of a study, one a line, with their intervals; filled where the interval leaves 0 out."""
    from bokeh.models import LabelSet, Range1d, Span

    chart = _base("forest", 90 + 44 * rows, tools="xpan,xbox_zoom,xwheel_zoom,reset,save", drag="xbox_zoom")
    chart.y_range = Range1d(-rows + 0.45, 0.75)
    chart.yaxis.visible = False
    chart.ygrid.visible = False
    chart.add_layout(Span(location=0, dimension="height", line_width=1.2, name="zero", tags=["ink"]))
    source = _source(0, "row", "alpha")
    chart.segment("low", "y", "high", "y", source=source, line_width=2.5, name="line-0").glyph.tags = ["arm", 0]
    point = chart.scatter("x", "y", source=source, size=11, marker="diamond", line_width=2, fill_alpha="alpha", name="points-0")
    point.glyph.tags = ["arm", 0]
    names = LabelSet(x=6, y="y", text="row", source=source, x_units="screen", y_offset=7, text_font_size="12px", tags=["text"])
    chart.add_layout(names)
    return _item(chart)


def _base(name: str, height: int, tools: str = "box_zoom,pan,wheel_zoom,reset,save", drag: str = "box_zoom") -> Figure:
    from bokeh.models import Span
    from bokeh.plotting import figure

    chart = figure(height=height, sizing_mode="stretch_width", tools=tools, name=name, toolbar_location="above", active_drag=drag)
    chart.toolbar.logo = None
    chart.background_fill_color = None
    chart.border_fill_color = None
    chart.outline_line_color = None
    chart.min_border_left, chart.min_border_right = 44, 12
    chart.xaxis.axis_label = "training step"
    for axis in chart.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
        axis.minor_tick_line_color = None
    chart.add_layout(Span(location=0, dimension="height", line_width=2, line_dash="dashed", name="now", tags=["ink"], visible=False))
    return chart


def _source(arm: int, *words: str) -> ColumnDataSource:
    """The columns of an arm; two points stand in until the script fills them, as a chart without any has no range to begin with."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({key: [0, 1] for key in ("x", "y", "low", "high", *words)}, name=f"source-{arm}")


def _ranges(chart: Figure, count: int) -> None:
    """Boxes for what is to be avoided and for the stage: told apart by their hatching as well as by colour."""
    from bokeh.models import BoxAnnotation, Span

    for i in range(count):
        hatching: dict[str, Any] = {"hatch_pattern": "right_diagonal_line", "hatch_alpha": 0.28, "hatch_scale": 14, "hatch_weight": 1.2}
        chart.add_layout(BoxAnnotation(
            left=0, right=0, visible=False, name=f"avoid-{i}", tags=["avoid", 0], level="underlay", fill_alpha=0.07, line_alpha=0.5,
            **hatching,
        ))  # fmt: skip
    chart.add_layout(BoxAnnotation(
        left=0, right=0, visible=False, name="stage", tags=["stage"], level="underlay", fill_alpha=0.1, line_alpha=0.9, line_dash="dashed",
        line_width=1.5,
    ))  # fmt: skip
    chart.add_layout(
        Span(location=0, dimension="width", line_width=1.3, line_dash="dotdash", name="own-level", tags=["ink"], visible=False)
    )


def _item(chart: Figure) -> dict[str, Any]:
    from bokeh.embed import json_item

    found: dict[str, Any] = json.loads(json.dumps(json_item(chart)))
    return found
