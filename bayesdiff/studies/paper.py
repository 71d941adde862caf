"""The paper's printed numbers (arXiv 2405.19931, KDD 2026), as facts to stand beside ours; Stable Diffusion, one A100.

Table 1 with the deviations over five seeds of Table A6; order CLIP-T, DINO, CLIP-I, LPIPS, CLIP-IQA.
"""

from __future__ import annotations

METRICS = ("clip_t", "dino", "clip_i", "lpips", "clip_iqa")
LABEL = "paper, SD 1.5"

Row = tuple[tuple[float, float], ...]


def _row(means: str, deviations: str) -> Row:
    return tuple(zip(map(float, means.split()), map(float, deviations.split()), strict=True))


TABLE_1: dict[tuple[str, str], Row] = {
    ("dreambooth", "off"): _row(".246 .614 .771 .611 .875", ".0017 .0057 .0037 .0051 .0028"),
    ("dreambooth", "on"): _row(".256 .633 .785 .640 .893", ".0016 .0056 .0035 .0054 .0023"),
    ("lora", "off"): _row(".252 .542 .722 .650 .864", ".0018 .0087 .0045 .0048 .0084"),
    ("lora", "on"): _row(".261 .618 .769 .678 .890", ".0032 .0104 .0064 .0072 .0021"),
    ("oft", "off"): _row(".233 .649 .786 .629 .861", ".0030 .0063 .0041 .0081 .0045"),
    ("oft", "on"): _row(".242 .661 .791 .646 .884", ".0010 .0028 .0026 .0062 .0068"),
}
TABLE_1_FACES: dict[tuple[str, str], Row] = {
    ("dreambooth", "off"): _row(".186 .642 .723 .511 .789", ".0065 .0179 .0115 .0087 .0078"),
    ("dreambooth", "on"): _row(".205 .696 .757 .515 .811", ".0036 .0102 .0090 .0191 .0095"),
    ("lora", "off"): _row(".216 .602 .656 .644 .804", ".0034 .0085 .0059 .0060 .0068"),
    ("lora", "on"): _row(".227 .604 .663 .688 .824", ".0025 .0049 .0163 .0078 .0065"),
    ("oft", "off"): _row(".164 .675 .728 .549 .784", ".0026 .0194 .0141 .0130 .0115"),
    ("oft", "on"): _row(".185 .696 .743 .570 .798", ".0024 .0078 .0066 .0061 .0094"),
}


def paper_numbers(study: str, labels: dict[str, str], metric: str) -> tuple[float, float] | None:
    """Mean and deviation over seeds that the paper prints for a row of a study; None where it prints none."""
    tables = {"table_1": TABLE_1, "table_1_faces": TABLE_1_FACES}
    row = tables.get(study, {}).get((labels.get("method", ""), labels.get("bnn", "")))
    return row[METRICS.index(metric)] if row is not None and metric in METRICS else None
