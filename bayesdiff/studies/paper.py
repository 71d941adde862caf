"""The paper's printed numbers (arXiv 2405.19931, KDD 2026), as facts to stand beside ours; Stable Diffusion, one A100.

Table 1 with the deviations over five seeds of Table A6; Tables 2 and 4 have none. Order CLIP-T, DINO, CLIP-I,
LPIPS, CLIP-IQA. All are of four to six images a subject (faces: five). Table 4 also has time and memory.
"""

from __future__ import annotations

from bayesdiff.studies.measures import COST, LAST, in_the_paper

PAPER_IMAGES = 4
"""Fewest images a subject that the paper's numbers are of."""
PAPER_SUBJECTS = 30
"""Classes of the DreamBooth set, or identities of CelebA-HQ."""
METRICS = in_the_paper(LAST)
"""The columns of Tables 1, 2 and 4, in the paper's order."""
LABELS = {"sd14": "paper, SD 1.4", "sd20": "paper, SD 2.0"}

Row = tuple[tuple[float, float], ...]


def _row(means: str, deviations: str = "nan nan nan nan nan") -> Row:
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


TABLE_2: dict[tuple[str, str], Row] = {
    ("sd14", "off"): _row(".248 .594 .762 .618 .872"),
    ("sd14", "on"): _row(".249 .620 .777 .656 .895"),
    ("sd15", "off"): _row(".246 .614 .771 .611 .875"),
    ("sd15", "on"): _row(".256 .633 .785 .640 .893"),
    ("sd20", "off"): _row(".240 .563 .739 .604 .875"),
    ("sd20", "on"): _row(".248 .610 .764 .649 .925"),
}
TABLE_4: dict[str, Row] = {
    "none": _row(".246 .614 .771 .611 .875"),
    "linear": _row(".256 .633 .785 .640 .893"),
    "linear, up block": _row(".259 .614 .776 .646 .890"),
    "linear and cross-attention": _row(".272 .611 .760 .672 .897"),
    "norms": _row(".254 .650 .792 .643 .889"),
}


TABLE_4_COST: dict[str, tuple[float, float]] = {
    "none": (933, 26.6),
    "linear": (1107, 31.2),
    "linear, up block": (1040, 29.0),
    "linear and cross-attention": (1157, 32.5),
    "norms": (1088, 26.6),
}
"""Seconds of training a class on one A100, and GB of GPU memory."""
COSTS = in_the_paper(COST)


def paper_label(model: str) -> str:
    """What the paper's numbers beside a model's are called; those of Stable Diffusion 1.5 where it has none of that model."""
    return "paper, same model" if "+" in model else LABELS.get(model, "paper, SD 1.5")


def _layers_of(study: str, labels: dict[str, str], metric: str) -> str:
    """The row of Table 4 that a row's cost stands beside: the study ``cost`` trains for fewer steps, so its memory alone does."""
    if study == "cost" and metric == "train_memory" and labels.get("method") == "dreambooth":
        return {"off": "none", "on": "linear"}.get(labels.get("bnn", ""), "")
    return labels.get("layers", "") if study == "table_4" else ""


def paper_numbers(study: str, labels: dict[str, str], metric: str, model: str = "sd15") -> tuple[float, float] | None:
    """Mean and deviation over seeds (nan where not printed) that the paper has for a row of a study; None where it has none.

    Whether a row is of as many images as the paper's (``PAPER_IMAGES``) is for the caller to say.
    """
    if metric in COSTS:
        cost = TABLE_4_COST.get(_layers_of(study, labels, metric))
        return None if cost is None else (cost[COSTS.index(metric)], float("nan"))
    arm = labels.get("bnn", "")
    row = {
        "table_1": TABLE_1.get((labels.get("method", ""), arm)),
        "table_1_faces": TABLE_1_FACES.get((labels.get("method", ""), arm)),
        "table_2": TABLE_2.get((model if model in LABELS else "sd15", arm)),
        "table_4": TABLE_4.get(labels.get("layers", "")),
    }.get(study)
    return None if row is None or metric not in METRICS else row[METRICS.index(metric)]
