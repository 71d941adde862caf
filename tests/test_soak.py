"""A small soak in every run of the tests: some kills, faults, damages and bad records on one run; ``make soak`` does them all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import save_few_pixels

from bayesdiff.recording import plots
from tests.soak import damages, sites
from tests.soak.parts import PARTS, Size, Soak
from tests.soak.verdict import judge
from tests.soak.world import fork, wait

SMALL = Size(kills=8, damages=6, workers=2, one_in=40)


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "settle", lambda figure: None)
        patch.setattr(plots, "save_figure", save_few_pixels)  # the same files, written in the same order
        one = Soak(tmp_path_factory.mktemp("soak"), SMALL, arms=("oft",))
        yield one
        one.world.close()


def wrong_of(soak: Soak, part: str) -> list[str]:
    soak.wrong.clear()
    PARTS[part](soak)
    return soak.wrong


def test_an_undisturbed_study_is_right(soak: Soak) -> None:
    assert soak.wrong == []


def test_a_study_goes_on_when_its_reader_goes(soak: Soak) -> None:
    """As behind ``| head``: what it prints has nowhere to go, and its runs end as ever."""
    root, (reading, writing) = soak.root("unread"), os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        assert wait(fork(lambda: soak.world.study(root), gone)) == 0
    assert judge(root, soak.whole) == []


def test_kills_lose_double_and_change_nothing(soak: Soak) -> None:
    assert wrong_of(soak, "sites") == []
    assert soak.counts["kills at sites"] >= 2


def test_faults_of_the_file_system_end_in_one_line_and_the_same_study(soak: Soak) -> None:
    soak.size = Size(workers=2, one_in=150)
    assert wrong_of(soak, "faults") == []
    assert soak.counts["faults"] >= 3


def test_damage_is_made_good_or_refused(soak: Soak) -> None:
    soak.size = SMALL
    assert wrong_of(soak, "damages") == []
    assert soak.counts["damages made good"] + soak.counts["damages refused"] == SMALL.damages


def test_bad_records_cost_themselves(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damages, "BAD_RECORDS", damages.BAD_RECORDS[1:3])
    assert wrong_of(soak, "records") == []


def test_what_is_wrong_is_seen(soak: Soak, tmp_path: Path) -> None:
    """Of a study with a lost run, one with a changed table, a doubled row and a left-over, each is named."""
    root = Path(shutil.copytree(soak.whole, tmp_path / "root"))
    (run,) = root.glob("runs/toybox-*")
    (run / "curve.csv").write_bytes((run / "curve.csv").read_bytes()[:-5])
    (run / "train.jsonl").write_bytes((run / "train.jsonl").read_bytes() * 2)
    (run / "resume").mkdir()
    assert {line.partition(":")[0] for line in judge(root, soak.whole)} == {"different", "doubled", "left over"}
    shutil.rmtree(run)
    assert any(line.startswith("lost: ") for line in judge(root, soak.whole))


def test_every_kind_of_write_is_seen(soak: Soak) -> None:
    """Before any table, picture, checkpoint or record is written, whoever writes it."""
    root, ledger = soak.root("seen"), sites.Ledger(soak.folder / "seen kinds")
    (words,) = soak.world.words()

    def act(site: sites.Site) -> None:
        ledger.claim(site.kind)

    assert soak.start(root, words, act)[0] == 0
    written = {kind.split(" ", 1)[1].removesuffix(".partial") for kind in ledger.names()}
    for name in ("scores.csv", "train.jsonl", "record.json", "curve.png", "images/step-N", "checkpoints/step-N", "resume/step-N"):
        assert f"runs/RUN/{name}" in written, name
    assert {kind.split()[0] for kind in ledger.names()} >= {
        "open",
        "append",
        "tear",
        "write",
        "fsync",
        "rename",
        "remove",
        "mkdir",
        "rmdir",
    }
