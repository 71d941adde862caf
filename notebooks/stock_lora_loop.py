"""A LoRA trained by stock diffusers code, with the running verdict: python notebooks/stock_lora_loop.py OUTPUT

The model is the toybox, so that it runs on a laptop. For Stable Diffusion change MODEL, PHOTOS, PROMPTS and metrics.
The lines that are not stock code end with "# bayesdiff".
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from torchvision.transforms.functional import to_tensor

from bayesdiff.judging.callback import CheckpointJudge, Progress
from bayesdiff.toybox.subjects import render_subject
from bayesdiff.toybox.weights import PIPELINE

MODEL = str(PIPELINE)
SUBJECT, IDENTIFIER, CLASS_NOUN = "toy_backpack", "qwe", "backpack"
PROMPTS = [f"a photo of a {IDENTIFIER} {CLASS_NOUN}", f"a {IDENTIFIER} {CLASS_NOUN} on the beach"]
IMAGES_PER_PROMPT, SAMPLER_STEPS = 2, 10


def main(output: Path, steps: int = 240, every: int = 30) -> Progress:
    """Train, validate, and stop where there is a reason to; returns what was known at the end."""
    (photos := output / "photos").mkdir(parents=True)
    for number, pixels in enumerate(render_subject(SUBJECT, 3)):
        Image.fromarray(pixels).save(photos / f"{number}.png")

    torch.manual_seed(0)
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32, safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    trained = [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)

    pixels = torch.stack([to_tensor(Image.open(path)) * 2 - 1 for path in sorted(photos.iterdir())])
    with torch.no_grad():
        latents = pipe.vae.encode(pixels).latent_dist.mean * pipe.vae.config.scaling_factor
        text, _ = pipe.encode_prompt(PROMPTS[0], "cpu", 1, False)

    judge = CheckpointJudge(  # bayesdiff
        photos, prompts=PROMPTS, identifier=IDENTIFIER, class_noun=CLASS_NOUN, metrics="toybox", folder=output, patience=4
    )
    for step in range(steps + 1):
        if step % every == 0:
            pipe.save_lora_weights(output / f"checkpoint-{step}", unet_lora_layers=get_peft_model_state_dict(pipe.unet))
            progress = judge.update(step, sample(pipe))  # bayesdiff
            print(progress)  # bayesdiff
            if progress.reason:  # bayesdiff
                break
        noise = torch.randn_like(latents[:1])
        timestep = torch.randint(0, noise_scheduler.config.num_train_timesteps, (1,))
        clean = latents[step % len(latents)][None]
        predicted = pipe.unet(noise_scheduler.add_noise(clean, noise, timestep), timestep, text).sample
        velocity = noise_scheduler.config.prediction_type == "v_prediction"
        target = noise_scheduler.get_velocity(clean, noise, timestep) if velocity else noise
        torch.nn.functional.mse_loss(predicted, target).backward()
        optimizer.step()
        optimizer.zero_grad()
    return progress


def sample(pipe: StableDiffusionPipeline) -> list[Image.Image]:
    """The same prompts and seeds at every validation, the images of a prompt together."""
    found = []
    for prompt in PROMPTS:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(IMAGES_PER_PROMPT)]
        found += pipe([prompt] * IMAGES_PER_PROMPT, num_inference_steps=SAMPLER_STEPS, generator=seeds).images
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
