"""The corruption stage of few-shot diffusion fine-tuning, measured. ``bayesdiff --help`` lists the commands."""

__version__ = "0.1.0"
