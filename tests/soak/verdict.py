"""Whether a disturbed study is the undisturbed one: every run once, every record valid, equal bit for bit, nothing left over."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

from bayesdiff.core.layout import CHECKPOINTS, CONFIG, FAILURES, LOCK, MANIFEST, RECORD, REPORT, RESUME, SCORES, TRAIN_LOG
from bayesdiff.recording.archive import read_record, whole_record
from bayesdiff.recording.checkpoint import verify
from bayesdiff.recording.columns import Damaged

OF_THE_HOST = ("command", "seconds", "peak_memory_mb", "environment")
"""What a record says of the machine and of the time it took."""
COSMETIC = ("curve.png", "curve.svg", "grid.png")


def _json(path: Path) -> Any:
    """A JSON file without what differs between two equal runs: host, time, folders, and hashes of tensor files."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if path.name == RECORD:
        content = {key: value for key, value in content.items() if key not in OF_THE_HOST}
        content["config"].pop("paths", None)
    elif path.name == MANIFEST:  # the order of a tensor file's header is by chance; ``verify`` reads the hashes
        content["files"] = sorted(content["files"])
    return content


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in load_file(path).items()}
    if path.suffix == ".json":
        return _json(path)
    if path.name == CONFIG:
        return json.dumps({key: part for key, part in yaml.safe_load(path.read_text(encoding="utf-8")).items() if key != "paths"})
    return path.read_bytes()


def contents(folder: Path) -> dict[str, Any]:
    """What two equal runs have in common, by path; a page says how long its run took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (LOCK, REPORT))
    return {str(path.relative_to(folder)): _content(path) for path in files}


def differing(ours: Path, theirs: Path) -> list[str]:
    """Files of two folders that are not the same; a run that says that its pictures failed need not have them."""
    a, b = contents(ours), contents(theirs)
    names = sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or a[name] != b[name])
    said = a.get(RECORD, {}).get("message", "")
    return [name for name in names if not (said and (name == RECORD or Path(name).name in COSMETIC))]


def left_over(root: Path) -> list[str]:
    """What a finished study does not leave: half-written files, resume states, notes of failures."""
    patterns = ("**/*.partial", f"*/*/{RESUME}", f"runs/{FAILURES}/*.json", "**/.tmp*")
    return sorted(str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern))


def _runs(root: Path) -> dict[str, Path]:
    return {path.name: path for path in root.glob("runs/toybox-*")}


def doubled(run: Path) -> list[str]:
    """Tables of a run in which something stands twice."""
    steps = [json.loads(line)["step"] for line in (run / TRAIN_LOG).read_text().splitlines()]
    tables = {TRAIN_LOG: steps}
    for path in [run / SCORES, *run.glob(f"evaluations/*/{SCORES}")]:
        tables[str(path.relative_to(run))] = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    return [name for name, keys in tables.items() if max(Counter(keys).values()) > 1]


def _judge_run(name: str, run: Path, whole: Path) -> list[str]:
    try:
        record, _ = read_record(run)
    except Damaged as damaged:
        return [f"lost: {damaged}"]
    if record.status != "completed":
        return [f"lost: {name} is {record.status}"]
    for folder in run.glob(f"{CHECKPOINTS}/step-*"):
        verify(folder, record.run_key)
    return [f"doubled: {name}/{table}" for table in doubled(run)] + [f"different: {name}/{file}" for file in differing(run, whole)]


def judge_runs(root: Path, whole: Path) -> list[str]:
    """What is wrong with the run folders of a study, each line lost, doubled, different or left over; empty where nothing is."""
    ours, theirs = _runs(root), _runs(whole)
    wrong = [f"lost: {name}" for name in theirs if name not in ours] + [f"doubled: {name}" for name in ours if name not in theirs]
    for name in ours.keys() & theirs.keys():
        wrong += _judge_run(name, ours[name], theirs[name])
    return wrong + [f"left over: {name}" for name in left_over(root)]


def judge(root: Path, whole: Path) -> list[str]:
    """``judge_runs``, and the collected records."""
    wrong = judge_runs(root, whole)
    for name in _runs(whole):
        kept = root / "results" / "records" / name
        if whole_record(kept) is None:
            wrong.append(f"lost: record {name}")
        else:
            wrong += [f"different: record {name}/{file}" for file in differing(kept, whole / "results" / "records" / name)]
    return wrong
