"""The paper's numbers as they are printed, and where there are none."""

from __future__ import annotations

import pytest

from bayesdiff.studies.paper import METRICS, TABLE_1, TABLE_1_FACES, paper_numbers


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
    ],
)
def test_numbers_are_found_by_row_and_metric(study: str, labels: dict[str, str], metric: str, expected: tuple[float, float] | None) -> None:
    assert paper_numbers(study, labels, metric) == expected
