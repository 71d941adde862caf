"""One page that people look at: ``python -m bayesdiff.report RUN|STUDY|FOLDER … [-o FILE.html]``.

RUN is a run folder or a collected record; several stand beside each other, the first is the reference. STUDY is the name of a
study. FOLDER has the samples of another trainer, as ``judge`` takes them (--photos). A result set, such as results/toybox, gets a
site: an index and a page for each study. Every page is one HTML file that needs no network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import UserError, bad_input_in_one_line, did_you_mean
from bayesdiff.core.layout import RECORD, RECORDS, REPORT, SITE
from bayesdiff.core.output import say

if TYPE_CHECKING:
    from bayesdiff.reporting.traces import Trace


def _parser() -> Parser:
    parser = Parser("report", __doc__)
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="run folders or records, a study's name, a folder of samples, or a result set")
    add("-o", "--output", type=path, metavar="FILE.html", help="the page (default: RUN/report.html, else STUDY.html or report.html here)")
    add("--title", default="", help="what stands on top (default: what the runs have in common)")
    add("--results", type=path, default=Path("results/toybox"), help="where a study's records are (default: results/toybox)")
    add("--model", default="toybox", help="whose study (default: toybox)")
    add("--photos", type=path, help="of samples: the photographs that were trained on")
    add("--class-noun", default="", metavar="NOUN", help="of samples: what fills {class_noun} in prompts")
    add("--identifier", default="", metavar="WORD", help="of samples: the rare word of the subject")
    add("--metrics", metavar="GROUP", help="of samples: encoders, toybox, paper or dinov2")
    add("--pattern", metavar="REGEX", help="of samples: what their names mean, as judge --help has it")
    add("--prompts", type=path, metavar="FILE", help="of samples: their prompts, as judge --help has it")
    add("--cache", type=path, metavar="CACHE", help="of samples: where scores are kept (default: the user's cache folder)")
    return parser


def _runs(arguments: argparse.Namespace, folders: list[Path]) -> Path:
    """One page of run folders, records and folders of samples."""
    from bayesdiff.reporting.pages import MOST_ARMS, write_runs
    from bayesdiff.reporting.traces import arms_of

    arms: list[Trace] = []
    for folder in folders:
        arms += arms_of(folder) if (folder / RECORD).is_file() else [_judged(arguments, folder)]
    alone = len(folders) == 1
    inside = folders[0] / REPORT if alone and (folders[0] / RECORD).is_file() else Path(REPORT)
    return write_runs(arms[:MOST_ARMS] if alone else arms, arguments.output or inside, arguments.title)


def _judged(arguments: argparse.Namespace, folder: Path) -> Trace:
    """A folder of samples as ``judge`` judges it; its command is ``judge`` with the same words."""
    from bayesdiff.judging.judgement import judge_folder
    from bayesdiff.judging.scored import default_cache
    from bayesdiff.judging.settings import Asked
    from bayesdiff.reporting.judged import judged_arm

    names = ("photos", "class_noun", "identifier", "metrics", "prompts", "pattern")
    given = {name: getattr(arguments, name) for name in names}
    judgement = judge_folder(folder, Asked(**given), arguments.cache or default_cache())
    options = [word for name, value in given.items() if value for word in (f"--{name.replace('_', '-')}", str(value))]
    return judged_arm(judgement, ["bayesdiff", "judge", str(folder), *options])


def _study(arguments: argparse.Namespace, name: str) -> Path:
    from bayesdiff.core.machine import cores
    from bayesdiff.recording.archive import open_archive
    from bayesdiff.reporting.study import write_study_page
    from bayesdiff.studies.plan import load_study, study_names

    known = study_names()
    if name not in known:
        raise UserError(f"{name}: no such folder, and no study of this name; studies are {', '.join(known)}{did_you_mean(name, known)}")
    study = load_study(name, arguments.model)
    return write_study_page(study, open_archive(arguments.results, cores()), arguments.output or Path(f"{name}.html"))


def _site(arguments: argparse.Namespace, results: Path) -> list[Path]:
    from bayesdiff.core.machine import cores
    from bayesdiff.recording.archive import open_archive
    from bayesdiff.reporting.site import write_site

    return write_site(open_archive(results, cores()), arguments.output or results / SITE)


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    """Write the page, or the site, and say where."""
    arguments = _parser().parse_args(argv)
    folders = [Path(source) for source in arguments.sources]
    sets = [folder for folder in folders if (folder / RECORDS).is_dir()]
    if len(folders) > 1 and (sets or not all(folder.is_dir() for folder in folders)):
        odd = next((folder for folder in folders if folder in sets or not folder.is_dir()), folders[0])
        raise UserError(f"{odd}: no run folder; several sources are run folders, records or folders of samples")
    if sets:
        written = _site(arguments, sets[0])
    elif folders[0].is_dir():
        written = [_runs(arguments, folders)]
    else:
        written = [_study(arguments, arguments.sources[0])]
    for page in written:
        say(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
