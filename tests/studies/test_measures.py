"""One table of measures, which everything reads."""

from __future__ import annotations

from bayesdiff.scoring.metrics import HIGHER_IS_BETTER, METRICS
from bayesdiff.studies import figures, paper
from bayesdiff.studies.claims import KNOWN
from bayesdiff.studies.measures import CLAIM, COST, CURVE, LAST, MEASURES, in_the_paper, named, of, p_text


def test_every_measure_says_what_it_is() -> None:
    for name, measure in MEASURES.items():
        assert name == measure.name
        assert measure.label and measure.unit and measure.source
        assert measure.direction in ("higher", "lower", "neither")
        assert measure.of in (LAST, CURVE, COST, CLAIM)


def test_metrics_take_their_direction_from_the_metrics_of_a_run() -> None:
    directions = {measure.name: measure.direction for measure in of(LAST)}
    assert set(directions) <= set(METRICS)
    assert directions == {name: "higher" if HIGHER_IS_BETTER[name] else "lower" for name in directions}


def test_the_paper_s_columns_are_in_its_order() -> None:
    assert in_the_paper(LAST) == paper.METRICS == ["clip_t", "dino", "clip_i", "lpips", "clip_iqa"]
    assert in_the_paper(COST) == paper.COSTS == ["train_seconds", "train_memory"]
    assert set(figures.LAST_METRICS) == set(paper.METRICS)


def test_a_measure_of_a_table_is_found_by_name_or_label() -> None:
    for word in ("dino", "DINO"):
        found = named(word)
        assert found is not None and found.name == "dino"
    assert named("step of the deepest fall") is None, "claims alone ask for it"
    assert "step of the deepest fall" in KNOWN


def test_no_p_value_is_said_to_be_0() -> None:
    assert [p_text(p) for p in (0.0, 0.00009, 0.0001, 1.0)] == ["< 0.0001", "< 0.0001", "0.0001", "1.0000"]
    assert [p_text(p, 3, "= ") for p in (1e-9, 0.0009, 0.001, 0.25)] == ["< 0.001", "< 0.001", "= 0.001", "= 0.250"]
