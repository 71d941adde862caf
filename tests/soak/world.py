"""A study of four small runs, and a process that is warm: a run is a fork of it and starts at once.

The models are random and have a few thousand weights. What a fork finds loaded is what its own loading would give: each
process works on a copy of its own.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.soak.pictures import Drawn

STUDY = """
title: four small runs
experiment: smoke
compare: {{arm: {first}}}
grid:
  arm:
    bayesian: [method=dreambooth, bnn=on, schedule.keep=all, sampler.sample_weights=1, probes=true]
    plain: [method=dreambooth, bnn=off, schedule.keep=best, method.prior_preservation=true, method.class_images=1]
    lora: [method=lora, method.rank=2, bnn=ema, schedule.keep=last_and_best]
    oft: [method=oft, method.rank=2, bnn=on, schedule.keep=last]
models:
  toybox:
    minutes: 1
    overrides:
      - model.path={folder}/pipeline
      - metrics.clip=local-dir:{folder}/clip
      - metrics.dino=local-dir:{folder}/dino
      - schedule.steps=3
      - schedule.checkpoints=[0,1,2,3]
      - schedule.log_every=1
"""
ARMS = ("bayesian", "plain", "lora", "oft")
NAME, EXTRA = "soak", "+evaluations={shown:{weights:trained,images_per_prompt:1}}"


def build_models(folder: Path) -> None:
    """A pipeline of one block, and encoders, with random weights that are always the same."""
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    from bayesdiff.pretraining import clip, dino
    from bayesdiff.pretraining.tokenizer import build_tokenizer
    from tests import twins

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4, attention_head_dim=2, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
    )  # fmt: skip
    text = CLIPTextModel(twins._text_config(8, "gelu"))
    StableDiffusionPipeline(
        vae=twins._vae(), text_encoder=text, tokenizer=build_tokenizer(), scheduler=twins.DDIM(**twins.SCHEDULE), unet=unet,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "pipeline")  # fmt: skip
    clip.save(clip.build(), folder / "clip")
    dino.save(dino.build(), folder / "dino")


class World:
    """The models, the study, and this process with everything loaded that a run needs."""

    def __init__(self, folder: Path, arms: tuple[str, ...] = ARMS):
        """Write models and study below an empty folder, and put what is loaded in the loaders' place (``close`` puts them back).

        Args:
            arms: the runs of the study.
        """
        self.folder, self.arms = folder, arms
        with contextlib.redirect_stderr(io.StringIO()):  # bars
            build_models(folder)
        (folder / "studies").mkdir()
        lines = STUDY.format(folder=folder, first=arms[0]).splitlines(keepends=True)
        left_out = [f"    {arm}:" for arm in ARMS if arm not in arms]
        text = "".join(line for line in lines if not line.startswith(tuple(left_out)))
        (folder / "studies" / f"{NAME}.yaml").write_text(text)
        self.disturb: Callable[[], None] = lambda: None
        """Called in every forked run before it starts."""
        self.follow: Callable[[int], int] = wait
        """Called with the id of every forked run; returns how it ended."""
        self._undo = contextlib.ExitStack()
        self._replace_loaders()
        self._warm()

    def close(self) -> None:
        self._undo.close()

    def _put(self, owner: Any, name: str, value: Any) -> None:
        self._undo.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def _replace_loaders(self) -> None:
        from bayesdiff import run
        from bayesdiff.config.compose import compose
        from bayesdiff.diffusion import pipeline
        from bayesdiff.recording import record
        from bayesdiff.reporting import charts
        from bayesdiff.scoring import encoders
        from bayesdiff.studies import engine, plan, state

        self._replace_drawing()
        self._put(charts, "curve_chart", _remembered(charts.curve_chart))
        self.compose = _remembered(compose)
        self._put(plan, "EXPERIMENTS", self.folder / "studies")
        self._put(state, "compose_cell", _remembered(plan.compose_cell))
        self._put(pipeline, "load_pipeline", _remembered(pipeline.load_pipeline))
        self._put(encoders, "load_encoders", _remembered(encoders.load_encoders))
        self._put(record, "_git", functools.cache(record._git))
        self._put(engine, "devices", list)
        self._put(engine, "LOCK_SECONDS", 0.1)  # who is waited for does not end sooner
        self._put(engine, "_call", self.run)
        self._put(run, "_job", run._job)

    def _replace_drawing(self) -> None:
        from matplotlib.figure import Figure

        from bayesdiff.recording import plots

        drawn = Drawn(self.folder / "drawn")
        self._put(plots, "plot_curve", drawn.plot_curve(plots.plot_curve))
        self._put(plots, "settle", drawn.settle(plots.settle))
        self._put(Figure, "savefig", drawn.savefig(Figure.savefig))

    def _warm(self) -> None:
        import torch

        from bayesdiff.diffusion import pipeline
        from bayesdiff.recording import record
        from bayesdiff.runs import experiment  # noqa: F401  and all that it imports
        from bayesdiff.scoring import encoders
        from bayesdiff.studies import pages, plan, state  # noqa: F401

        torch.set_num_threads(1)
        for cell in plan.load_study(NAME).cells:
            vars(state)["compose_cell"](cell, (EXTRA,))
            cfg = self.compose((*cell.overrides, EXTRA))
            pipeline.load_pipeline(cfg.model, torch.device("cpu"))
            encoders.load_encoders(cfg.metrics, torch.device("cpu"))
        record.environment("cpu")
        self._end_a_run()
        OF_THE_WORLD.update(_open_descriptors())

    def _end_a_run(self) -> None:
        """A run is done by a fork and its end drawn again here: fonts, formulas and the libraries of a page are loaded once."""
        from bayesdiff.core.layout import RESUME
        from bayesdiff.diffusion.subject import load_subject
        from bayesdiff.recording.record import load_record
        from bayesdiff.runs.closing import end_again

        words, runs = next(self.words()), self.folder / "warm"
        with (self.folder / "warm.txt").open("w+") as said:
            code = wait(fork(functools.partial(self.command, [*words, f"paths.runs={runs}"]), said))
            said.seek(0)
            assert code == 0, said.read()
        (run,) = runs.glob("toybox-*")
        (run / RESUME).mkdir()  # as if it had been killed behind its verdict
        cfg, record = self.compose(words), load_record(run)
        assert record is not None
        with contextlib.redirect_stdout(io.StringIO()):
            end_again(cfg, run, record, load_subject(cfg.data, cfg.shots.count, cfg.seed, cfg.model.resolution))
        assert "failed" not in record.message, record.message

    def words(self) -> Iterator[tuple[str, ...]]:
        """The words of each run's command, but for the folder of runs."""
        from bayesdiff.studies.plan import load_study

        for cell in load_study(NAME).cells:
            yield (*cell.overrides, EXTRA)

    def study(self, root: Path) -> int:
        """``python -m bayesdiff.study``, by one worker, in this process; its exit code."""
        from bayesdiff import study

        return study.main([NAME, EXTRA, "--runs", str(root / "runs"), "--results", str(root / "results")])

    def run(self, command: list[str], words: IO[str], environment: dict[str, str]) -> int:
        """What the engine does with a run's command of record, as a fork of this process; its exit code."""
        return self.follow(fork(functools.partial(self.command, command[3:]), words, self.disturb))

    def command(self, words: list[str]) -> int:
        """``python -m bayesdiff.run WORDS`` with its own handling of errors; Hydra's start is left out, its composition remembered."""
        from bayesdiff import run
        from bayesdiff.core.errors import RunDiverged
        from bayesdiff.runs.experiment import run_experiment

        root = words[-1].removeprefix("paths.runs=")

        def job() -> None:
            cfg = copy.deepcopy(self.compose(tuple(words[:-1])))
            cfg.paths.runs, cfg.paths.cache = root, f"{root}/cache"
            _, record = run_experiment(cfg)
            if record.status == "diverged":
                raise RunDiverged(record.message)

        run._job = job
        sys.argv = ["bayesdiff.run", *words]
        warnings.simplefilter("ignore")
        run.main()
        return 0


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gives the same again where its arguments print the same."""
    known: dict[str, Any] = {}

    def remembered(*arguments: Any) -> Any:
        if (key := repr(arguments)) not in known:
            known[key] = function(*arguments)
        return known[key]

    return remembered


OF_THE_WORLD: set[int] = set()
"""Descriptors that were open when this process was warm: of fonts, which a fork reads too."""


def _open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208  names alone


def _close_all_but(kept: set[int]) -> None:
    """Locks of the parent go with its own descriptors."""
    for number in _open_descriptors() - kept - {0, 1, 2}:
        with contextlib.suppress(OSError):  # of the listing itself
            os.close(number)


def fork(call: Callable[[], int | None], output: IO[str], before: Callable[[], None] = lambda: None) -> int:
    """A process that calls and ends with the code that is returned; its words go to ``output``. Returns its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    if not (pid := os.fork()):
        _child(call, output.fileno(), before)
    return pid


def _child(call: Callable[[], int | None], output: int, before: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        _close_all_but(OF_THE_WORLD)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", line_buffering=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8", line_buffering=True)
        before()
        code = int(call() or 0)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """How a process ended: its code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
