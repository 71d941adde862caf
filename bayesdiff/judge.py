"""Which checkpoint of another trainer is to be kept? ``python -m bayesdiff.judge FOLDER --photos PHOTOS``.

FOLDER has the samples that a trainer wrote at its checkpoints: of kohya's scripts, ai-toolkit, SimpleTuner or OneTrainer, a folder a
step, or a run of this package. Their names tell steps and prompts; --pattern says what other names mean. Nothing in it is changed.

With --model, FOLDER has checkpoints (LoRA files, adapters of peft, whole models). Each is sampled with that base model.

Exit codes:
   0  no corruption stage
  10  a stage
  11  it cannot be judged (too few checkpoints, or broken sampling)
   2  bad input
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import ExitCode, UserError, bad_input_in_one_line
from bayesdiff.core.output import say
from bayesdiff.judging.judgement import Judgement, judge_folder
from bayesdiff.judging.scored import default_cache
from bayesdiff.judging.settings import DEFAULT_METRICS, Asked
from bayesdiff.judging.watching import watch
from bayesdiff.readings.judging import CANNOT_BE_JUDGED
from bayesdiff.readings.printing import as_json, print_verdict


def _parser() -> Parser:
    parser = Parser("judge", __doc__)
    add = parser.add_argument
    add("folder", type=path, metavar="FOLDER", help="samples of several checkpoints")
    add("words", nargs="*", metavar="KEY=VALUE", help="settings of a run, such as detector.metric=clip_i or metrics.dino=…")
    add("--photos", type=path, help="the photographs that were trained on (a run of this package knows its own)")
    add("--class-noun", default="", metavar="NOUN", help="what fills {class_noun} in prompts")
    add("--identifier", default="", metavar="WORD", help="the rare word of the subject: CLIP-T is measured without it (sks)")
    add("--metrics", metavar="GROUP", help=f"encoders: toybox, paper or dinov2 (default: the run's own, else {DEFAULT_METRICS})")
    add("--pattern", metavar="REGEX", help="what names mean: (?P<step>…), with (?P<prompt>…) and (?P<image>…) where there are such")
    add("--prompts", type=path, metavar="FILE", help="one prompt a line in the order of the samples, or a JSON object by name")
    add("--model", metavar="MODEL", help="sample the checkpoints in FOLDER with this base model: sd15, sdxl …, a folder or a hub id")
    add("--cache", type=path, metavar="CACHE", help="keep scores and such samples in this folder (default: the user's cache folder)")
    add("--watch", action="store_true", help="judge again whenever files come, until Ctrl-C, which ends with the verdict")
    add("--report", type=path, metavar="FILE.html", help="write the page of the verdict with its samples: one file, no network")
    add("--json", action="store_true", help="print the verdict as JSON")
    return parser


def _print(judgement: Judgement, as_words: bool) -> None:
    verdict, reading = judgement.verdict, judgement.reading
    if as_words:
        print_verdict(Console(emoji=False, width=None if Console().is_terminal else 100), verdict, reading, full=True)
    else:
        print(json.dumps({**as_json(verdict, reading), **judgement.details}, indent=1))


def _page(judgement: Judgement, target: Path, words: list[str]) -> None:
    """Write the page; where it is goes to stderr, so that JSON stays JSON."""
    from bayesdiff.reporting.judged import judged_arm
    from bayesdiff.reporting.pages import write_runs

    write_runs([judged_arm(judgement, ["bayesdiff", "judge", *words])], target)
    say(f"page: {target}", error=True)


def _judgement(arguments: argparse.Namespace, asked: Asked, cache: Path | None, page: Callable[[Judgement], None]) -> Judgement:
    """Judge once, or until Ctrl-C; JSON is printed once, at the end."""
    if not arguments.watch:
        found = judge_folder(arguments.folder, asked, cache)
        page(found)
        _print(found, not arguments.json)
        return found

    def show(judgement: Judgement) -> None:
        page(judgement)
        if not arguments.json:
            _print(judgement, True)
            print("watching; Ctrl-C ends with the verdict", flush=True)

    found = watch(arguments.folder, asked, cache, show, without=arguments.report)
    if arguments.json:
        _print(found, False)
    else:
        print()
        say(f"{found.reading.name}: {found.verdict.sentence}")
    return found


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    """Judge the samples of a folder; the exit code says what was found."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow a training beside it
    given = sys.argv[1:] if argv is None else argv
    arguments = _parser().parse_intermixed_args(given)
    asked = Asked(
        arguments.photos, arguments.class_noun, arguments.identifier, arguments.metrics, arguments.prompts, arguments.pattern,
        arguments.model, tuple(arguments.words),
    )  # fmt: skip
    if wrong := [word for word in arguments.words if "=" not in word]:
        raise UserError(f"{wrong[0]}: give one folder a time, and settings as KEY=VALUE")
    target: Path | None = arguments.report
    page = (lambda _: None) if target is None else (lambda found: _page(found, target, given))
    judgement = _judgement(arguments, asked, arguments.cache or default_cache(), page)
    if judgement.verdict.flagged:
        return ExitCode.FOUND
    return ExitCode.NOT_JUDGED if judgement.verdict.kind in CANNOT_BE_JUDGED else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
