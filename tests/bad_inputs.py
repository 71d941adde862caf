"""Bad input of every kind for every command: the files, and what is done with them. ``test_bad_input`` throws it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from made_records import fill, make_run, prepare
from PIL import Image

from bayesdiff.config.schema import Config

LONG = "x" * 300
HUGE = "9" * 20
KEY = "hf_" + "AbCdEfGh" * 4
"""Looks like a token of the hub; it is none."""
WRONG: dict[type, tuple[str, ...]] = {
    Enum: ("nosuch", "1", "true", "[1]", "{a:1}", "''"), bool: ("abc", "nan", "1.5", "[1]", "{a:1}", "''"),
    int: ("abc", "nan", "inf", "1.5", "''", "true", "[1,2]", "{a:1}"), float: ("abc", "''", "true", "[1]", "{a:1}", "nan"),
    str: ("[1,2]", "{a:1}", "x" * 5000), list: ("abc", "1", "true", "{a:1}"), dict: ("abc", "1", "[1]"),
}  # fmt: skip
"""Of each kind of setting values that are of another kind, not finite, empty, or absurdly long."""
BEYOND = {
    "-1": ("seed", "sampler.seed", "shots.seed", "shots.count", "schedule.log_every", "data.images", "sampler.steps", "method.rank",
    "bnn.dropout",
           "sampler.guidance_scale", "detector.min_depth", "detector.alpha", "training.weight_decay", "method.learning_rate",
           "training.batch_size", "bnn.kl_weight", "detector.checkpoint_noise", "method.alpha", "training.min_snr_gamma"),
    "0": ("shots.count", "data.images", "sampler.steps", "method.rank", "method.learning_rate", "training.batch_size", "model.resolution",
          "sampler.images_per_prompt", "schedule.log_every", "metrics.batch_size", "method.alpha", "detector.alpha"),
    "inf": ("method.learning_rate", "sampler.guidance_scale", "bnn.sigma_init", "bnn.prior_sigma", "training.max_grad_norm",
    "bnn.ema_decay"),
    "1": ("bnn.ema_decay", "bnn.dropout", "bnn.prompt_dropout", "detector.alpha"),
    HUGE: ("seed", "sampler.seed", "shots.seed", "data.images", "model.resolution", "sampler.steps", "schedule.log_every", "method.rank",
           "sampler.batch_size", "training.batch_size", "sampler.images_per_prompt", "metrics.batch_size", "shots.count"),
    "[]": ("schedule.checkpoints", "sampler.prompts", "training.betas"),
    "' '": ("data.identifier", "data.instance_prompt", "data.class_prompt"),
    f"'{LONG}'": ("paths.runs", "paths.cache", "model.path", "data.path", "metrics.clip", "metrics.dino", "metrics.clip_iqa"),
    KEY: ("data.subject", "data.identifier", "experiment_name", "tracker.project", "tracker.entity", "model.path", "paths.runs"),
}  # fmt: skip
"""Values of the right kind that are out of range."""


def leaves(kind: Any = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of the schema, with its type."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = hints[field.name]
        yield from leaves(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [(f"{prefix}{field.name}", inner)]


def of_schema() -> list[str]:
    """``key=value`` words that no configuration takes, from the schema alone."""
    found = []
    for key, kind in leaves():
        kinds = [kind, *get_args(kind)] if get_origin(kind) not in (list, dict) else [get_origin(kind)]
        plain = next(one for one in WRONG if any(isinstance(each, type) and issubclass(each, one) for each in kinds))
        found += [f"{key}={value}" for value in (*WRONG[plain], *(() if NoneType in kinds else ("null",)))]
    return found + [f"{key}={value}" for value, keys in BEYOND.items() for key in keys]


RUN = [
    ["--bogus"], ["a"], ["="], ["seed"], ["seed=["], ["seed='"], ["sead=1"], ["+seed=1"], ["+foo=1"], ["~nosuch"], ["hydra.foo=1"],
    ["bnn=[1]"], ["bnn={a:1}"], ["bnn=3"], ["bnn=null"], ["data=true"], ["bnn="], ["bnn=nosuch"], ["+experiment=nosuch"], ["seed=${foo}"],
    ["data.subject=${data.nosuch}"], ["data.subject=${data.subject}"], ["seed=${oc.env:NOSUCH_VARIABLE}"],
    ["bnn.options={a:1}"], ["bnn.options=1"], ["+evaluations.a=x"], ["+evaluations.a.weights=x"], ["+evaluations.a.foo=1"],
    ["+evaluations={a:{weights:x}}"], ["+evaluations={a:{foo:1}}"], ["+evaluations={a:{steps:0}}"], ["+evaluations={a:{prompts:[]}}"],
    ["+evaluations={a:{guidance_scale:nan}}"], ["+evaluations={a:{prompts:[[x]]}}"], ["+evaluations={a:[1]}"], ["+evaluations={a:x}"],
    ["training.rate_changes=[[nan,1]]"], ["training.rate_changes=[[inf,1]]"], ["training.rate_changes=[[true,1]]"], ["=1"], ["--resolve"],
    ["training.rate_changes=[[5,nan]]"], ["hydra.run.dir=/dev/null/x"], ["sampler.guidance_scale=1e30"], ["bnn=on", "bnn.layers=''"],
    ["+evaluations={a:{guidance_scale:1e30}}"], ["+evaluations={a:{},A:{}}"], ["+evaluations={Main:{}}"], ["data.class_noun=' '"],
    ["sampler.prompts=['a photo','a  photo']"], ["sampler.prompts=[object,object]"], ["data.class_prompt='{identifier}'"],
    ["metrics.clip=''"], ["metrics.dino=' '"], ["model.path=''"],
    ["sampler.prompts=[[a]]"], ["sampler.prompts=[{a:1}]"], ["method.targets=[[to_q]]"], ["metrics.extra=[{a:1}]"],
    ["training.betas=[[0.9],0.99]"], ["schedule.checkpoints=[[0],20]"],
    ["+evaluations={main:{}}"], ["+evaluations={'a b':{}}"], ["+evaluations.a.steps=0"], ["+evaluations.a.prompts=[]"],
    ["+evaluations.a.guidance_scale=nan"], ["schedule.checkpoints=[a]"], ["schedule.checkpoints=[0,0]"], ["schedule.checkpoints=[-1,10]"],
    ["training.betas=[1,2]"], ["training.rate_changes=[[a,b]]"], ["training.rate_changes=[[1,1],[1,1]]"], ["sampler.prompts=['a {x} b']"],
    ["sampler.prompts=['a {identifier!r:>9999999999} b']"], ["sampler.prompts=['a {identifier.x} b']"], ["data.instance_prompt='{'"],
    ["WANDB_API_KEY=abcdefghijkl"], ["tracker.api_key=abcdefghijkl"], [f"hydra.job.env_set.X={KEY}"], ["method.name=.."], ["bnn.kind=."],
    ["method.name=os.path"], ["bnn.kind=nosuch.module"], ["device=gpu"], ["device=cuda:99"], ["training.mixed_precision=fp16"],
]  # fmt: skip
"""Words of a run, each beside ``+experiment=smoke``."""
LATER = [
    ["data.class_noun=zebra"], ["data.identifier=Backpack"],
    ["model.path='~/nosuch'"], ["model.path=../../nosuch"],
    ["data.identifier=zzz"], ["data.class_noun='a\tb'"], ["metrics.extra=[nosuch.f]"],
    ["metrics.extra=[os.getcwd]"],
    ["metrics.extra=['']"], ["metrics.clip=nosuch/x"], ["metrics.clip=ViT-B-32/nosuch"], ["metrics.dino=nosuch"],
    ["metrics.clip=local-dir:/nosuch"], ["method=lora", "method.targets=[nosuch]"], ["method=lora", "method.targets=[to_q,nosuch]"],
    ["method=lora", "method.targets=[]"], ["method=oft", "method.targets=[conv1]"], ["method=oft", "method.rank=7"],
    ["bnn=on", "bnn.layers=nosuch"], ["bnn=on", "bnn.layers='('"], ["model.resolution=50"], ["sampler.steps=5000"], ["model.path=/nosuch"],
    ["+evaluations={a:{steps:5000}}"], ["paths.runs={R}/file"],
    *([*group, f"data.path={path}"] for group in (["data=folder", "data.class_noun=dog"], ["data=dreambooth", "data.subject=dog"])
      for path in ("/nosuch", "{R}/fifo", "/dev/zero", "{R}/file", "{R}/loop", "{R}/empty")),
    *(["data=folder", "data.class_noun=dog", f"data.path={{R}}/photos_{name}"] for name in ("fifo", "device", "broken", "bomb", "folder")),
]  # fmt: skip
"""What is seen only with the photographs, the tokenizer or the model's shape; never after a model's weights."""
STUDY = [
    ["--model", "nosuch"], ["--model", ""], ["--workers", "0"], ["--workers", "x"], ["--workers", "1.5"], ["--only", "x"], ["--only",
    "x=y"],
    ["--only", "method=nosuch"], ["--only"], ["--runs", "{R}/file"], ["--runs", LONG], ["--runs", "${oc.env:HOME}"], ["--results",
    "{R}/file"],
    ["--results", "{R}/fifo"], ["--results", LONG], ["seed=x"], ["seed=-1"], ["sead=1"], ["bnn=nosuch"], ["seed=1,2"], ["seed=["],
    ["shots.count=0"], ["a"], [f"data.identifier={KEY}"], ["bnn.options={a:1}"], ["--bogus"], ["+foo=1"], ["~seed"], ["paths.runs=x"],
    ["schedule.checkpoints=[0,5]"], ["data.path=${oc.env:HOME}"], ["hydra.foo=1"], ["sampler.guidance_scale=nan"],
]  # fmt: skip
NAMES = ["nosuch", "table_9", "", "../x", "/etc/passwd", LONG, "a b", "table_1.yaml", "${oc.env:HOME}"]
WORKER = [
    [], ["studdy=x"], ["study=nosuch"], ["study=null"], ["study=table_1", "base_model=nosuch"], ["study=table_1", "runs={R}/file"],
    ["study=table_1", "results={R}/file"], ["study=["], ["study=table_1", "overrides=x"], ["study=table_1", "overrides=[seed=x]"],
    ["study=table_1", "overrides=['sead=1']"], ["study=table_1", "overrides=[3]"], ["--bogus"], ["study=table_1", "hydra/launcher=nosuch"],
    ["study=[1]"], ["study=3"], ["study=table_1", "runs=3"], ["study=table_1", "runs=[1]"], ["study=table_1", "threads=x"],
    ["study=table_1", "threads=-1"],
]  # fmt: skip
FILES = [
    "{R}/none", "{R}/fifo", "/dev/zero", "/dev/null", "{R}/link", "{R}/loop", "{R}/bin", "{R}/empty", "{R}/empty.csv", "{R}/head.csv",
    "{R}/words.csv", "{R}/huge.csv", LONG, "a\0b",
]  # fmt: skip
VERDICT = [
    [], ["wandb:"],
    *(["{R}/good.csv", *words] for words in (
        ["--alpha", "x"], ["--alpha", "nan"], ["--alpha", "0"], ["--alpha", "1"], ["--min-depth", "nan"], ["--min-depth", "-1"],
        ["--min-depth", "x"], ["--checkpoint-noise", "inf"], ["--seed", "-1"], ["--seed", "x"], ["--seed", "1.5"], ["--seed", "9" * 30],
        ["--step", "nosuch"], ["--metric", "nosuch"], ["--value", "nosuch"], ["--run", "nosuch"], ["--higher-is-better",
        "--lower-is-better"],
        ["--plot", "{R}/empty"], ["--plot", "x.nosuch"], ["--plot", f"{LONG}.png"], ["--plot", "{R}/file/x.png"], ["--bogus"], ["--value"],
    )),
]  # fmt: skip
JUDGE = [
    [], ["{R}/samples"], ["{R}/samples", "{R}/samples", "--photos", "{R}/photos"],
    *([path, "--photos", "{R}/photos"] for path in ("{R}/none", "{R}/fifo", "{R}/loop", "{R}/file", "{R}/empty", LONG)),
    *(["{R}/samples", "--photos", path] for path in ("{R}/none", "{R}/fifo", "/dev/zero", "{R}/file", "{R}/empty", "{R}/photos_fifo",
    LONG)),
    *(["{R}/samples", "--photos", "{R}/photos", *words] for words in (
        ["--metrics", "nosuch"], ["--metrics", ""], ["--pattern", "["], ["--pattern", "x"], ["--pattern", "(?P<step>.*)"], ["seed=x"],
        ["seed=-1"], ["sead=1"], ["foo"], ["detector.alpha=2"], ["detector.metric=nosuch"], ["model=nosuch"], ["--bogus"], ["--class-noun"],
        ["--prompts", "{R}/none"], ["--prompts", "{R}/fifo"], ["--prompts", "/dev/zero"], ["--prompts", "{R}/empty"], ["--prompts",
        "{R}/bin"],
        ["--prompts", "{R}/empty.csv"], ["--prompts", "{R}/odd.json"], ["--cache", LONG], [f"data.path={KEY}"],
    )),
]  # fmt: skip
EXPORT = [["{good}", *words] for words in (
    ["--step", "x"], ["--step", "-1"], ["--step", "1.5"], ["--step", "99"], ["--step", "9" * 30], ["--output", LONG], ["--bogus"],
)]  # fmt: skip
COMPARE = [[], *(["{good}", "{good}", *words] for words in (
    ["--metric", "nosuch"], ["--metric", ""], ["--plot", "{R}/empty"], ["--plot", LONG], ["--plot", "x.nosuch"], ["--plot"], ["--bogus"],
))]  # fmt: skip
TABLES = [["{set}", *words] for words in (
    ["--model", "nosuch"], ["--explain"], ["--explain", "a"], ["--explain", "table_1", "x", "y"], ["--explain", "nosuch", "x", "y"],
    ["--bogus"], ["extra"],
)]  # fmt: skip
ALIASES = "a: &a [x, x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(9 * [f'*{chr(97 + i)}'])}]\n" for i in range(12))
"""A YAML file of a few lines that stands for billions of values."""
YAML = [
    "bomb.yaml",
    "self.yaml",
    "deep.yaml",
    "none",
    "fifo",
    "yaml.yaml",
    "list.yaml",
    "num.yaml",
    "str.yaml",
    "bin",
    "nullkey.yaml",
    "empty",
    "loop",
]
CLAIMS = [
    ["{set}", *words]
    for words in ([], ["--model", "nosuch"], ["--model", "sd15"], ["--bogus"], ["--claims", LONG], ["--claims", "/dev/zero"])
]
CLAIMS += [["{set}", "--claims", f"{{R}}/{name}"] for name in YAML if name != "list.yaml"]
CALIBRATION = [[], ["--bogus"], ["{R}/empty.yaml", "--parts", "x"], ["{R}/empty.yaml", "--workers", "x"], ["/dev/zero"],
    ["{R}/badkey.yaml"],
               *([f"{{R}}/{name}"] for name in YAML)]  # fmt: skip
RECORDS = (
    "empty", "nojson", "list", "null", "bin", "deep", "extra", "no config", "config list", "config empty", "verdict text", "status number",
    "environment list", "subject list", "photos number", "detector text", "sampler null", "bnn of other kinds", "fifo", "folder",
    "seconds text", "memory deep", "ceiling text", "seconds huge", "versions text", "status unknown", "alpha beyond", "steps below 0",
    "no detector", "no shots",
)  # fmt: skip
"""Records that are none; each is a run folder."""
SCORES = ("empty", "head", "bin", "other columns", "words", "no number", "fifo", "folder")
"""Tables of scores that are none; each is in a run folder with a sound record."""


def _record(name: str, good: dict[str, Any]) -> bytes:
    config = good["config"]
    texts = {"empty": b"", "nojson": b"{", "list": b"[]", "null": b"null", "bin": b"\xff\xfe\0", "deep": b"[" * 100_000}
    changed: dict[str, dict[str, Any]] = {
        "extra": {**good, "foo": 1}, "no config": {key: value for key, value in good.items() if key != "config"},
        "config list": {**good, "config": []}, "config empty": {**good, "config": {}}, "verdict text": {**good, "verdict": "x"},
        "status number": {**good, "status": 1}, "environment list": {**good, "environment": []}, "subject list": {**good, "subject": []},
        "photos number": {**good, "subject": {"photos": 3}}, "detector text": {**good, "config": {**config, "detector": "x"}},
        "sampler null": {**good, "config": {**config, "sampler": None}},
        "seconds text": {**good, "seconds": {"train": "x"}}, "memory deep": {**good, "peak_memory_mb": {"train": {"a": 1}}},
        "ceiling text": {**good, "real_to_real": {"dino": "x"}}, "seconds huge": {**good, "seconds": {"train": 10**400}},
        "versions text": {**good, "environment": {"versions": "x"}}, "status unknown": {**good, "status": "done"},
        "alpha beyond": {**good, "config": {**config, "detector": {**config["detector"], "alpha": 2.0}}},
        "steps below 0": {**good, "config": {**config, "schedule": {**config["schedule"], "checkpoints": [-5, 20]}}},
        "no detector": {**good, "config": {key: value for key, value in config.items() if key != "detector"}},
        "no shots": {**good, "config": {key: value for key, value in config.items() if key != "shots"}},
        "bnn of other kinds": {**good, "config": {**config, "bnn": {"kind": 3, "sigma": "x"}}},
    }  # fmt: skip
    return texts[name] if name in texts else json.dumps(changed[name]).encode()


def _odd(path: Path, name: str) -> None:
    path.unlink()
    os.mkfifo(path) if name == "fifo" else path.mkdir()


def make(root: Path) -> dict[str, str]:
    """Every file that the cases name; what stands for ``{R}``, ``{good}`` and ``{set}``."""
    for name in ("empty", "photos", "photos_fifo", "photos_device", "photos_broken", "photos_bomb", "photos_folder/a.png"):
        (root / name).mkdir(parents=True)
    texts = {"file": "x", "empty.csv": "", "head.csv": "step,dino\n", "words.csv": "step,dino\na,b\n", "yaml.yaml": "a: [1",
    "str.yaml": "abc",
             "list.yaml": "[1,2]", "num.yaml": "3", "nullkey.yaml": "? [a]\n: 1\n", "empty.yaml": "", "badkey.yaml": "repeats: abc\n",
             "odd.json": "3", "bomb.yaml": ALIASES,
             "self.yaml": "- &a {claim: *a}\n", "deep.yaml": "[" * 5000 + "]" * 5000,
             "good.csv": "step,dino\n" + "".join(f"{10 * i},{0.5 + 0.01 * i}\n" for i in range(12))}  # fmt: skip
    for name, text in texts.items():
        (root / name).write_text(text)
    (root / "bin").write_bytes(bytes(range(256)))
    with (root / "huge.csv").open("wb") as sparse:
        sparse.truncate(2**31 + 1)  # takes no room
    for name in ("fifo", "photos_fifo/a.png"):
        os.mkfifo(root / name)
    (root / "photos_device" / "a.png").symlink_to("/dev/zero")
    (root / "link").symlink_to(root / "nowhere")
    (root / "loop").symlink_to(root / "loop")
    (root / "photos_broken" / "a.png").write_bytes(b"no image")
    Image.new("1", (20_000, 20_000)).save(root / "photos_bomb" / "a.png")
    Image.new("RGB", (64, 64), "red").save(root / "photos" / "a.png")
    for step in (100, 200, 300):
        (root / "samples" / f"step-{step}").mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(step + i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "samples" / f"step-{step}" / f"{i}.png")
    study = prepare(root / "studies")
    good = make_run(study.cells[0], root / "runs")
    _bad_runs(root, good)
    return {"{R}": str(root), "{good}": str(good), "{set}": str(fill(study, root / "collected", study.cells[:1]))}


def _bad_runs(root: Path, good: Path) -> None:
    content = json.loads((good / "record.json").read_text())
    head = "step,prompt,image,metric,reference,value\n"
    tables = {"empty": b"", "head": head.encode(), "bin": b"\xff\xfe\0\1", "other columns": b"a,b\n1,2\n",
              "words": f"{head}a,b,c,d,e,f\n".encode(), "no number": f"{head}0,0,0,dino,,\n".encode()}  # fmt: skip
    for kind, names, file in (("record", RECORDS, "record.json"), ("scores", SCORES, "scores.csv")):
        for name in names:
            run = root / kind / name
            shutil.copytree(good, run)
            (run / "checkpoints" / "step-000010").mkdir(parents=True)
            if name in ("fifo", "folder"):
                _odd(run / file, name)
            else:
                (run / file).write_bytes(_record(name, content) if kind == "record" else tables[name])


def cases() -> list[tuple[str, list[str]]]:
    """(command, words) of everything but runs and the schema."""
    found = [("study", [name, "--dry-run"]) for name in NAMES] + [(command, [name]) for command in ("status", "sweep") for name in NAMES]
    found += [("study", ["table_1", "--dry-run", *words]) for words in STUDY]
    places = (["--runs", "{R}/file"], ["--runs", LONG], ["--results", "{R}/file"], ["--model", "nosuch"], ["--bogus"], ["--runs"])
    found += [("status", ["table_1", *words]) for words in places]
    outputs = (["--output", "{R}/file"], ["--output", "{R}/file/x"], ["--output", LONG], ["--model", "nosuch"], ["--bogus"], ["--all"])
    found += [("sweep", []), *(("sweep", ["table_1", *words]) for words in outputs)]
    lists = {"worker": WORKER, "verdict": VERDICT, "judge": JUDGE, "export": EXPORT, "compare": COMPARE, "tables": TABLES, "claims": CLAIMS,
             "calibration": CALIBRATION}  # fmt: skip
    found += [(command, words) for command, each in lists.items() for words in each]
    found += [(command, [file]) for command in ("verdict", "compare", "export", "tables", "claims") for file in FILES]
    found += [
        ("compare", ["{good}", f"{{R}}/record/{name}"])
        for name in RECORDS
        if name not in ("photos number", "detector text", "no detector", "no shots")
    ]
    found += [("export", [f"{{R}}/record/{name}"]) for name in RECORDS]
    found += [("verdict", [f"{{R}}/record/{name}"]) for name in RECORDS if name != "no shots"]
    found += [("report", [f"{{R}}/record/{name}"]) for name in RECORDS]
    return found + [
        (command, [*words, f"{{R}}/scores/{name}"]) for command, words in (("verdict", []), ("compare", ["{good}"])) for name in SCORES
    ]
