"""The benchmark of tables measures what it says it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayesdiff.recording import archive
from bayesdiff.recording.archive import open_archive
from tests import bench_tables

pytestmark = pytest.mark.usefixtures("restored_studies")


@pytest.mark.parametrize("unjudged", [False, True])
def test_made_records_are_whole_different_and_judged_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unjudged: bool) -> None:
    judged: list[str] = []
    original = archive.judge
    monkeypatch.setattr(archive, "judge", lambda record, images: judged.append(record.run_key) or original(record, images))
    found = open_archive(bench_tables.make(tmp_path, 20, unjudged))
    assert (len(found.runs), found.damaged) == (bench_tables.PER_SEED, {})
    assert len({run.scores["main"].last["dino"].tobytes() for run in found.runs.values()}) == bench_tables.PER_SEED
    assert len(judged) == (bench_tables.PER_SEED if unjudged else 0)
