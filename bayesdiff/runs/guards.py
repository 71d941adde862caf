"""What a run refuses: other photographs, weights or devices than it began with, and words that its model has no token for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesdiff.config.prompts import Prompt
from bayesdiff.core.errors import UserError
from bayesdiff.core.processes import is_main_process
from bayesdiff.diffusion.subject import Subject
from bayesdiff.recording.record import RunRecord

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def check_same_photos(folder: Path, record: RunRecord, subject: Subject) -> None:
    """The run key covers where photographs lie, not what is in them; raises ``UserError`` when that changed."""
    before = [photo["sha256"] for photo in record.subject.get("photos", [])]
    if before and before != [photo.digest for photo in subject.photos]:
        raise UserError(f"{folder}: made with other photographs than there are now; remove the folder, or give data.subject another name")


def check_same_weights(folder: Path, record: RunRecord, weights: dict[str, str]) -> None:
    """Raises ``UserError`` when a run was begun with other local weights than there are now."""
    if changed := [name for name, value in weights.items() if record.weights.get(name, value) != value]:
        raise UserError(f"{folder}: made with other weights ({', '.join(changed)}) than there are now; remove the folder, or move it")


def check_same_device(folder: Path, record: RunRecord, here: dict[str, Any]) -> None:
    """Raises ``UserError`` when a run would resume on another kind of device."""
    was, now = record.environment.get("device", here["device"]), here["device"]
    if was.partition(":")[0] != now.partition(":")[0]:
        raise UserError(f"{folder}: begun on {was}, and {now} would draw other weight noise; add device={was}")


def check_same_gpu(folder: Path, record: RunRecord, here: dict[str, Any], noise_on_device: bool) -> None:
    """Raises ``UserError`` when an arm whose noise is drawn on the GPU would resume on another kind of GPU."""
    was, now = record.environment.get("gpu", here["gpu"]), here["gpu"]
    if noise_on_device and was != now:
        raise UserError(f"{folder}: begun on {was}, and {now} would draw other noise; resume there, or remove the folder")


def check_words(pipe: StableDiffusionPipeline, subject: Subject, prompts: list[Prompt]) -> None:
    """Raises ``UserError`` for an identifier or class noun that the model has no token for; says so of other words of prompts."""
    from bayesdiff.diffusion.pipeline import unknown_words

    for key, word in (("identifier", subject.identifier), ("class_noun", subject.class_noun)):
        if unknown_words(pipe, [word]):
            raise UserError(f"data.{key}={word}: this model has no token for it; the toybox's words are in bayesdiff/toybox/vocabulary.py")
    if (others := unknown_words(pipe, [prompt.text for prompt in prompts])) and is_main_process():
        print(f"Prompts have words that this model does not know, and reads as one and the same: {', '.join(others)}")
