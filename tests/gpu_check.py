"""What a card does: ``make gpu-check`` runs the GPU tests, then times training and sampling, prints a table and writes JSON.

The U-Net, decoder and text encoder have the true size of Stable Diffusion 1.5 and random weights, on which time and memory do
not depend. One photograph and one class row make a step, as in the paper. It takes at most eight minutes, or ``--minutes``; what there
was no time for is named. ``--small`` does the same with a U-Net of a few thousand weights on the CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from bayesdiff.arms import draws
from bayesdiff.config.compose import compose
from bayesdiff.config.schema import Config, SamplerPrecision
from bayesdiff.core.files import write_json
from bayesdiff.diffusion.batch import Conditioning, Encoded
from bayesdiff.diffusion.graphed import graphed_forward
from bayesdiff.diffusion.precision import unet_in
from bayesdiff.training.batches import batch_at
from bayesdiff.training.graph import obstacle
from bayesdiff.training.loop import DTYPES, Training, prepare, train
from bayesdiff.training.objective import training_loss

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 8.0
WARM_UP, STEPS = 3, 10
ARMS = {
    "off": ["bnn=off"], "on": ["bnn=on"], "fixed": ["bnn=weight_noise"], "norms": ["bnn=on", "bnn.layers=norms"],
    "LoRA off": ["method=lora", "bnn=off"], "LoRA on": ["method=lora", "bnn=on"],
    "OFT off": ["method=oft", "bnn=off"], "OFT on": ["method=oft", "bnn=on"],
}  # fmt: skip
IMAGES, DENOISING = 100, 50
"""Images and steps of the sampling figure, which is computed from the time of one pass of 8 images with guidance."""


@dataclass(frozen=True)
class Size:
    """Models of one size, and where they stand."""

    device: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    latent: int
    width: int
    text: dict[str, int]


_DOWN, _UP = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
TRUE = Size(
    "cuda", {"cross_attention_dim": 768, "sample_size": 64},
    {"down_block_types": _DOWN, "up_block_types": _UP, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    64, 768, {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
)  # fmt: skip
SMALL = Size(
    "cpu", {
        "cross_attention_dim": 8, "sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4,
        "attention_head_dim": 2, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    {"down_block_types": _DOWN, "up_block_types": _UP, "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4},
    8, 8, {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
)  # fmt: skip


@dataclass
class Found:
    """Rows so far, and the end of the time."""

    until: float
    only: str = ""
    """What the names of rows that are measured match, a regular expression."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Measure a row, unless time is over; a failure becomes the row."""
        if not re.search(self.only, name):
            return
        if time.monotonic() > self.until:
            self.left_out.append(name)
            return
        try:
            row = make()
        except Exception as error:  # one cell that fails must not lose the others
            row = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        self.rows.append({"name": name, **row})
        print(line(self.rows[-1]), flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device: str, once: Callable[[], None], repeats: int = 3) -> dict[str, float]:
    """Median ms of a call after one that warms up, and the peak of GPU memory in GB (0 on a CPU)."""
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    once()
    times = []
    for _ in range(repeats):
        wait(device)
        begun = time.perf_counter()
        once()
        wait(device)
        times.append(time.perf_counter() - begun)
    return {"ms": statistics.median(times) * 1e3, "gb": torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0}


def unet_of(size: Size) -> Any:
    from diffusers import UNet2DConditionModel

    with torch.device(size.device):
        return UNet2DConditionModel(**size.unet).requires_grad_(False)


def encoded(size: Size) -> Encoded:
    shape = (1, 4, size.latent, size.latent)
    with torch.device(size.device):
        return Encoded(torch.randn(shape), torch.rand(shape), Conditioning(torch.randn(1, 77, size.width)))


def training(size: Size, words: list[str]) -> tuple[Config, Training]:
    """A run on random weights, ready to train on one photograph and one class image."""
    from diffusers import DDPMScheduler

    cfg = compose(("+experiment=smoke", "schedule.log_every=1000", "schedule.steps=1000000", "schedule.checkpoints=[1000000]", *words))
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    pipe: Any = SimpleNamespace(unet=unet_of(size), scheduler=scheduler)
    return cfg, prepare(pipe, cfg, encoded(size), encoded(size))


def our_step(size: Size, words: list[str]) -> dict[str, Any]:
    cfg, state = training(size, words)
    why, at = obstacle(state, cfg), [0]

    def once() -> None:
        train(state, cfg, at[0], at[0] + STEPS, lambda *_: None)
        at[0] += STEPS

    found = timed(size.device, once)
    return {"ms": found["ms"] / STEPS, "gb": found["gb"], "eager_because": why, "compiled": state.compiled}


def loop_of(size: Size, words: list[str], before: Callable[[], None], read: bool) -> dict[str, Any]:
    """Forward, backward, clipping and AdamW in a plain loop; ``before`` each step, and the loss is ``read`` or not."""
    cfg, state = training(size, words)
    batch, dtype = batch_at(0, 0, 1, 1000, state.instance, state.classes), DTYPES.get(cfg.training.mixed_precision)

    def once() -> None:
        for _ in range(STEPS):
            before()
            with torch.autocast(size.device, dtype, enabled=dtype is not None):
                loss = training_loss(state.pipe.unet, state.noise_schedule, batch, {})[0]
            loss.backward()
            nn.utils.clip_grad_norm_(state.trained, 1.0)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            if read:
                loss.item()

    found = timed(size.device, once)
    return {"ms": found["ms"] / STEPS, "gb": found["gb"]}


def stock_step(size: Size, words: list[str]) -> dict[str, Any]:
    """As diffusers' train_dreambooth.py does a step: images and texts are encoded anew, and the loss is read each time."""
    vae, text = frozen(size)
    pixels = torch.randn(2, 3, 8 * size.latent, 8 * size.latent, device=size.device)
    tokens = torch.zeros(2, 77, dtype=torch.long, device=size.device)

    @torch.no_grad()
    def before() -> None:
        vae.encode(pixels).latent_dist.sample()
        text(tokens)

    return loop_of(size, words, before, read=True)


def frozen(size: Size) -> tuple[Any, Any]:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device(size.device):
        vae = AutoencoderKL(latent_channels=4, **size.vae)
        text = CLIPTextModel(CLIPTextConfig(vocab_size=49408 if size is TRUE else 20, max_position_embeddings=77, **size.text))
    return vae.requires_grad_(False).eval(), text.requires_grad_(False).eval()


@torch.no_grad()
def sampling(size: Size, precision: SamplerPrecision, recorded: bool) -> dict[str, Any]:
    """Seconds of U-Net passes and decoding for ``IMAGES`` images of ``DENOISING`` steps."""
    unet, (vae, _) = unet_of(size).eval(), frozen(size)
    with torch.device(size.device):
        latents, times, states = torch.randn(16, 4, size.latent, size.latent), torch.tensor(500), torch.randn(16, 77, size.width)
    with graphed_forward(unet, {} if recorded else None), unet_in(unet, precision):
        passing = timed(size.device, lambda: unet(latents, times, encoder_hidden_states=states, return_dict=False))
    decoding = timed(size.device, lambda: vae.decode(latents[:1]))
    needed = passing["ms"] * DENOISING * IMAGES / 8 + decoding["ms"] * IMAGES
    return {"ms": passing["ms"], "gb": passing["gb"], "seconds": needed / 1e3, "images_a_second": IMAGES / needed * 1e3}


def drawn(size: Size, fused: bool) -> dict[str, Any]:
    """The noise of Stable Diffusion 1.5's linear layers: 198 million numbers in 144 slices."""
    length = 1_377_568 if size is TRUE else 32
    out, starts = torch.empty(144 * length, device=size.device), [i * length for i in range(144)]
    with patch.object(draws, "_kernels", draws._kernels if fused else lambda out: None):
        used = "kernels" if draws._kernels(out) else "plain operations"
        return {**timed(size.device, lambda: draws.counter_normal(out, starts, range(144))), "said": used}


def curve(size: Size) -> dict[str, Any]:
    """Seconds of the toybox's main job, plain."""
    from bayesdiff.runs.experiment import run_experiment

    short = [] if size is TRUE else ["schedule.steps=2", "schedule.checkpoints=[2]", "sampler.steps=1", "sampler.images_per_prompt=1"]
    with tempfile.TemporaryDirectory() as folder:
        words = ("+experiment=corruption_curve", "training.graph=auto", f"device={size.device}", f"paths.runs={folder}", *short)
        begun = time.perf_counter()
        run_experiment(compose(words))
        return {"seconds": time.perf_counter() - begun}


def tests() -> dict[str, Any]:
    """The tests that need a GPU, in a process of their own."""
    files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "@pytest.mark.gpu" in path.read_text("utf-8"))
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *files]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    print(*[line for line in done.stdout.splitlines() if line.startswith(("E  ", "FAILED", "ERROR"))], sep="\n")
    return {"passed": done.returncode == 0, "said": (done.stdout.strip().splitlines() or ["nothing"])[-1]}


def cells() -> Iterator[tuple[str, list[str]]]:
    """Arms by precision and by how the step is run, the likeliest question first: time may end before the last."""
    for precision in ("bf16", "no"):
        for graph in ("auto", "off"):
            for arm, words in ARMS.items():
                name = f"{arm}, {'fp32' if precision == 'no' else precision}, {'graph' if graph == 'auto' else 'eager'}"
                yield name, [*words, f"training.mixed_precision={precision}", f"training.graph={graph}"]


def compiled_cells() -> Iterator[tuple[str, list[str]]]:
    """The alternative to a recorded step; on a CPU making the kernels takes minutes."""
    for arm in ("off", "on"):
        yield f"{arm}, bf16, compiled blocks", [*ARMS[arm], "training.mixed_precision=bf16", "training.compile_blocks=true"]


def check(size: Size, minutes: float = MINUTES, only: str = "") -> Found:
    found = Found(time.monotonic() + 60 * minutes, only)
    if size is TRUE:
        found.add("tests", tests)
    for precision in ("bf16", "no"):
        words, name = ["bnn=off", f"training.mixed_precision={precision}"], "fp32" if precision == "no" else precision
        found.add(f"bare loop, {name}", lambda words=words: loop_of(size, words, lambda: None, read=False))
        found.add(f"diffusers' script, {name}", lambda words=words: stock_step(size, words))
    for precision, recorded in ((SamplerPrecision.fp32, False), (SamplerPrecision.bf16, False), (SamplerPrecision.bf16, True)):
        name = f"sampling, {precision.value}, {'graph' if recorded else 'eager'}"
        found.add(name, lambda precision=precision, recorded=recorded: sampling(size, precision, recorded))
    for name in ("fused", "plain"):
        found.add(f"a draw, {name}", lambda name=name: drawn(size, name == "fused"))
    found.add("toybox corruption_curve", lambda: curve(size))
    for name, words in [*cells(), *(compiled_cells() if size is TRUE else [])]:
        found.add(name, lambda words=words: our_step(size, words))
    return found


def kept_rows(path: Path, measured: set[str]) -> list[dict[str, Any]]:
    """The rows of an earlier file whose names were not ``measured`` anew."""
    return [row for row in json.loads(path.read_text("utf-8"))["rows"] if row["name"] not in measured] if path.exists() else []


def line(row: dict[str, Any]) -> str:
    shown = [f"{row[key]:9.2f} {unit}" for key, unit in (("ms", "ms"), ("gb", "GB"), ("seconds", "s")) if key in row]
    said = [str(row[key]) for key in ("failed", "said", "eager_because", "compiled") if row.get(key)]
    return f"{row['name']:34}{' '.join(shown)} {'; '.join(said)}".rstrip()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", description=__doc__)
    parser.add_argument("--small", action="store_true", help="a few thousand weights on the CPU: does it all run?")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin no measurement after them")
    parser.add_argument("--only", default="", metavar="PATTERN", help="measure these rows anew, and keep the file's others")
    parser.add_argument("--to", type=Path, default=ROOT / "results" / "gpu", help="folder of the JSON file")
    given = parser.parse_args(arguments)
    if not given.small and not torch.cuda.is_available():
        print("gpu-check: this machine has no CUDA device; --small tries it on the CPU", file=sys.stderr)
        return 2
    size = SMALL if given.small else TRUE
    found = check(size, given.minutes, given.only)
    card = "cpu-small" if given.small else re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-")
    given.to.mkdir(parents=True, exist_ok=True)
    rows = found.rows + (kept_rows(given.to / f"{card}.json", {row["name"] for row in found.rows}) if given.only else [])
    write_json(given.to / f"{card}.json", {"card": card, "torch": torch.__version__, "rows": rows, "left_out": found.left_out})
    print(f"{given.to / card}.json; left out: {', '.join(found.left_out) or 'nothing'}")
    return 1 if any("failed" in row or row.get("passed") is False for row in found.rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
