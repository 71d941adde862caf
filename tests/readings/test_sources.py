"""What a source is, is seen from its name or its first bytes; what it is not is refused with what to give instead."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from made_records import make_run, prepare

from bayesdiff.core.errors import UserError
from bayesdiff.readings import Naming, read, read_all, sources

CSV = b"step,dino\n0,0.1\n10,0.2\n"
FRAME = pd.DataFrame({"step": [0, 10], "dino": [0.1, 0.2]})


def parquet() -> bytes:
    file = io.BytesIO()
    FRAME.to_parquet(file)
    return file.getvalue()


SAME = {
    "csv": CSV,
    "utf-16": CSV.decode().encode("utf-16"),
    "json": FRAME.to_json(orient="records").encode(),
    "json lines": FRAME.to_json(orient="records", lines=True).encode(),
    "parquet": parquet(),
    "gzip": gzip.compress(CSV),
}


@pytest.mark.parametrize("kind", SAME)
def test_a_table_is_the_same_in_any_form(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_suffix").write_bytes(SAME[kind])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(SAME[kind])))
    for source, name in ((str(tmp_path / "no_suffix"), str(tmp_path / "no_suffix")), ("-", "stdin")):
        (reading,) = read(source, Naming())
        assert (reading.name, reading.steps, reading.columns["dino"][:, 0].tolist()) == (name, (0, 10), [0.1, 0.2])


REFUSED = {
    "spreadsheet": (b"PK\x03\x04....", "save its sheet as CSV"),
    "old spreadsheet": (b"\xd0\xcf\x11\xe0....", "save its sheet as CSV"),
    "half a gzip": (gzip.compress(CSV)[:-9], "copy it again"),
    "changed gzip": (gzip.compress(CSV)[:12] + b"\xff" * 9 + gzip.compress(CSV)[21:], "copy it again"),
    "gzip in gzip": (gzip.compress(gzip.compress(CSV)), "packed twice"),
    "step that is none": (b"step,dino\n0,.1\n1e30,.2\n", "1e\\+30 is no training step; correct it"),
    "step below 0": (b"step,dino\n-10,.1\n10,.2\n", "-10 is no training step; correct it"),
    "half a parquet": (parquet()[:-9], "write it again"),
    "nothing": (b"", "the file is empty"),
    "weights": (bytes(range(256)) * 8, "no text"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_table_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    data, message = REFUSED[kind]
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read(str(tmp_path / "file"), Naming())
    assert str(caught.value).startswith(str(tmp_path / "file"))
    assert "\n" not in str(caught.value)


def test_what_is_packed_or_comes_through_a_pipe_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes of gzip, or a pipe that never ends, would fill the memory."""
    monkeypatch.setattr(sources, "MOST_UNPACKED", 10_000)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"0" * 100_000))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"0" * 100_000)))
    for source, name in ((str(tmp_path / "bomb.csv.gz"), "bomb.csv.gz"), ("-", "stdin")):
        with pytest.raises(UserError, match=rf"{name}: a table of more than .* GB; leave rows out"):
            read(source, Naming())


def test_an_accent_is_a_part_of_its_letter_whichever_way_it_was_typed(tmp_path: Path) -> None:
    for written, asked in ((1, 0), (0, 1)):
        names = [unicodedata.normalize(form, "fidélité") for form in ("NFC", "NFD")]
        (tmp_path / "x.csv").write_text(f"step,{names[written]},loss\n0,0.1,1\n10,0.2,1\n")
        (reading,) = read(str(tmp_path / "x.csv"), Naming(values=(names[asked],)))
        assert reading.metric == names[0]


def test_folders_and_names_without_anything(tmp_path: Path) -> None:
    for source, message in ((tmp_path, "a folder without scores.csv"), (tmp_path / "x", "not there")):
        with pytest.raises(UserError, match=message) as caught:
            read(str(source), Naming())
        assert "JSON lines, Parquet" in str(caught.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everyone may read everything here")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CSV)
    (tmp_path / "file").chmod(0)
    with pytest.raises(UserError, match="Permission denied; give a file that can be read"):
        read(str(tmp_path / "file"), Naming())


def test_long_logs_are_thinned_and_short_ones_are_not(tmp_path: Path) -> None:
    for name, rows in (("short.csv", 120), ("long.csv", 600)):
        (tmp_path / name).write_text("step,dino\n" + "".join(f"{i},{i / rows}\n" for i in range(rows)))
    short, long = read_all([str(tmp_path / "short.csv"), str(tmp_path / "long.csv")], Naming())
    assert (len(short.steps), len(long.steps)) == (120, 55)
    assert long.notes[0].startswith("600 rows thinned to 55 checkpoints: step 0 as it is")


def test_a_folder_of_samples_is_sent_to_judge(tmp_path: Path) -> None:
    (tmp_path / "step-100").mkdir()
    (tmp_path / "step-100" / "0.PNG").touch()
    with pytest.raises(UserError, match=f"a folder of images, and no scores; .*: bayesdiff judge {tmp_path} --photos PHOTOS$"):
        read(str(tmp_path), Naming())


@pytest.mark.usefixtures("restored_studies")
def test_a_completed_run_whose_table_was_cut_says_so(tmp_path: Path) -> None:
    run = make_run(prepare(tmp_path / "studies").cells[0], tmp_path / "runs")
    record, scores = json.loads((run / "record.json").read_text()), (run / "scores.csv").read_text()
    record["config"]["schedule"]["checkpoints"] = [0, 10, 20]
    (run / "record.json").write_text(json.dumps(record))
    assert read(str(run), Naming())[0].notes == ()
    (run / "scores.csv").write_text("".join(line for line in scores.splitlines(True) if not line.startswith("20,")))
    (note,) = read(str(run), Naming())[0].notes
    assert note == "the run is completed, and its table has no scores of step 20: copy it again, or repeat the run"
