"""Two bases beside each other: the numbers are the records' own, and what is missing is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from bayesdiff import tables
from bayesdiff.core.errors import ExitCode, UserError
from bayesdiff.studies.bases import Base, base_of, bases_table, main

ROOT = Path(__file__).resolve().parents[2]
TOYBOX, WIDE = ROOT / "results" / "toybox", ROOT / "results" / "wide"


@pytest.fixture(scope="module")
def wide() -> Base:
    return base_of(WIDE, "wide_base", "wide")


def test_the_table_has_the_means_of_the_records(wide: Base) -> None:
    table = bases_table([wide]).set_index("measure")
    probes = [pd.read_csv(run.folder / "probes.csv").query("weights == 'kept' and timestep == 100").set_index("step") for run in wide.found]
    gaps = pd.concat([one["gap"] for one in probes], axis=1).mean(axis=1)
    line = table.loc["gap at 0.1"]
    assert (line["at step 0"], line["in the end"]) == pytest.approx((gaps.iloc[0], gaps.iloc[-1]))
    assert (line["at step"], line["largest after it"]) == (gaps.iloc[1:].idxmax(), pytest.approx(gaps.iloc[1:].max()))
    curves = [pd.read_csv(run.folder / "curve.csv").set_index("step")["dino"] for run in wide.found]
    assert table.loc["dino"]["in the end"] == pytest.approx(pd.concat(curves, axis=1).mean(axis=1).iloc[-1], abs=1e-4)


def test_the_committed_files_are_what_the_command_makes(tmp_path: Path) -> None:
    own = Path(shutil.copytree(WIDE, tmp_path / "wide"))
    for name in ("bases.csv", "bases.png"):
        (own / name).unlink()
    page = (own / "README.md").read_text()
    (own / "tables" / "wide_base-wide.md").unlink()
    assert tables.main([str(own)]) == main([str(TOYBOX), str(own)]) == ExitCode.DONE
    assert (own / "tables" / "wide_base-wide.md").read_bytes() == (WIDE / "tables" / "wide_base-wide.md").read_bytes()
    assert (own / "bases.csv").read_bytes() == (WIDE / "bases.csv").read_bytes()
    assert (own / "README.md").read_text() == page
    assert (own / "bases.png").stat().st_size > 1000


def test_a_set_without_the_runs_is_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with pytest.raises(UserError, match=rf"{tmp_path}: has no run of wide_base; python -m bayesdiff\.study wide_base --model wide"):
        base_of(tmp_path, "wide_base", "wide")
