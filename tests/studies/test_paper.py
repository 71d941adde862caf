"""The paper's numbers as they are printed, and where there are none."""

from __future__ import annotations

import math

import pytest

from bayesdiff.studies.paper import METRICS, TABLE_1, TABLE_1_FACES, paper_label, paper_numbers


def test_every_printed_difference_favours_bayesian_weights() -> None:
    """30 of 30 cells, as the paper's tables say."""
    for table in (TABLE_1, TABLE_1_FACES):
        for method in ("dreambooth", "lora", "oft"):
            off, on = table[method, "off"], table[method, "on"]
            assert all(b[0] > a[0] for a, b in zip(off, on, strict=True))
            assert len(off) == len(METRICS)


@pytest.mark.parametrize(
    ("study", "labels", "metric", "expected"),
    [
        ("table_1", {"method": "oft", "bnn": "on"}, "dino", (0.661, 0.0028)),
        ("table_1_faces", {"method": "lora", "bnn": "off"}, "lpips", (0.644, 0.0060)),
        ("table_1", {"method": "oft", "bnn": "on"}, "hf_energy", None),
        ("figure_1", {"bnn": "on"}, "dino", None),
        ("table_1", {"method": "oft", "bnn": "ema"}, "dino", None),
        ("table_2", {"bnn": "on"}, "train_seconds", None),
    ],
)
def test_numbers_are_found_by_row_and_metric(study: str, labels: dict[str, str], metric: str, expected: tuple[float, float] | None) -> None:
    assert paper_numbers(study, labels, metric) == expected


def test_tables_without_printed_deviations_have_means_of_the_right_model() -> None:
    found = [paper_numbers("table_2", {"bnn": "on"}, "clip_t", model) for model in ("sd14", "sd15", "sd20", "toybox")]
    assert [round(mean, 3) for mean, _ in filter(None, found)] == [0.249, 0.256, 0.248, 0.256]
    assert [paper_label(model) for model in ("sd14", "toybox")] == ["paper, SD 1.4", "paper, SD 1.5"]
    norms = paper_numbers("table_4", {"layers": "norms"}, "dino")
    assert norms is not None and norms[0] == 0.650 and math.isnan(norms[1])


@pytest.mark.parametrize(("layers", "seconds", "gigabytes"), [("none", 933, 26.6), ("linear", 1107, 31.2), ("norms", 1088, 26.6)])
def test_table_4_has_what_training_costs(layers: str, seconds: float, gigabytes: float) -> None:
    for measure, expected in (("train_seconds", seconds), ("train_memory", gigabytes)):
        printed = paper_numbers("table_4", {"layers": layers}, measure)
        assert printed is not None and printed[0] == expected and math.isnan(printed[1])
