"""Shared fixtures: a random toybox-shaped pipeline and encoders, and composed configurations.

Tests run offline on the CPU with one thread. Random weights make them independent of the shipped
ones; tests that speak of the shipped toybox say so.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest

from bayesdiff.config.derive import derive
from bayesdiff.config.schema import Config
from bayesdiff.core.garbage import SELDOM

gc.set_threshold(5 * SELDOM[0], *SELDOM[1:])
"""It took a quarter of the time to load the tests, and a sixth of that of tests that compose configurations."""


def pytest_collection_finish() -> None:
    """What torch, diffusers and the tests themselves are made of is no garbage: the collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch  # here, and not above: the process that only hands out tests would load it as well, before any worker starts

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _not_flushed() -> Iterator[None]:
    """No test cuts the power: files need not reach the disk. Tests that look at flushing replace it once more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def random_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder with the toybox's parts, thinner, and random weights: a run of it takes a second or two."""
    import torch
    from tiny import thin_text_encoder, thin_unet, thin_vae

    from bayesdiff.pretraining.denoiser import Denoiser, save
    from bayesdiff.toybox.weights import save_component

    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(2)  # from here a few steps of LoRA make it better, which an export of the best step needs
    save_component("vae", thin_vae(), folder)
    save(Denoiser(thin_unet(), thin_text_encoder()), "zero_snr_v", folder)
    return folder


@pytest.fixture(scope="session")
def random_encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Names of a random CLIP and a random DINO in the shipped layouts, as ``metrics`` overrides."""
    import torch

    from bayesdiff.pretraining import clip, dino

    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    clip.save(clip.build(), folder / "clip")
    dino.save(dino.build(), folder / "dino")
    return {"metrics.clip": f"local-dir:{folder / 'clip'}", "metrics.dino": f"local-dir:{folder / 'dino'}"}


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A validated configuration from override strings, equal to the command line's (``test_derive``), a hundred times as fast."""

    def build(*overrides: str) -> Config:
        return derive(overrides)

    return build


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of runs are put together as ever and written as a few pixels: drawing them takes half of a small run.

    ``test_plots`` looks at whole pictures; commands in processes of their own, studies and the soak draw them.
    """
    from tiny import save_few_pixels

    from bayesdiff.recording import plots

    monkeypatch.setattr(plots, "settle", lambda figure: None)
    monkeypatch.setattr(plots, "save_figure", save_few_pixels)


@pytest.fixture
def smoke(random_pipeline: Path, random_encoders: dict[str, str], tmp_path: Path, quick_pictures: None) -> list[str]:
    """Overrides of a run in seconds on random weights, writing below ``tmp_path``."""
    encoders = [f"{key}={value}" for key, value in random_encoders.items()]
    return ["+experiment=smoke", "report=false", f"model.path={random_pipeline}", *encoders, f"paths.runs={tmp_path / 'runs'}"]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of one block and encoders in a folder."""
    from tests.soak.world import build_models

    folder = tmp_path_factory.mktemp("tiny")
    build_models(folder)
    return folder


@pytest.fixture
def tiny_smoke(tiny_models: Path, tmp_path: Path, quick_pictures: None) -> list[str]:
    """``smoke`` on models of a few thousand weights."""
    encoders = [f"metrics.{name}=local-dir:{tiny_models / name}" for name in ("clip", "dino")]
    return ["+experiment=smoke", "report=false", f"model.path={tiny_models / 'pipeline'}", *encoders, f"paths.runs={tmp_path / 'runs'}"]


@pytest.fixture
def restored_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests of studies replace (the folder of studies, the command of a run) is put back."""
    from bayesdiff.studies import engine, plan

    monkeypatch.setattr(plan, "EXPERIMENTS", plan.EXPERIMENTS)
    for name in ("run_command", "devices"):
        monkeypatch.setattr(engine, name, getattr(engine, name))
