"""Export a checkpoint for stock libraries: ``python -m bayesdiff.export RUN --step N``.

The folder holds the posterior mean (or the weight average) in the layout of its method, a model card
with the verdict, the curve and the command, and, for Bayesian runs, ``bnn_state.safetensors`` with mu
and sigma, which using the export does not need:

* DreamBooth: ``unet/`` in diffusers' layout (and the text encoders where they were trained);
* LoRA: ``pytorch_lora_weights.safetensors``, for ``pipe.load_lora_weights(FOLDER)``;
* OFT: peft's adapter of every part, and ``<part>_merged/``, the rotated model in its stock layout.
"""

from __future__ import annotations

import sys

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import bad_input_in_one_line
from bayesdiff.core.output import say
from bayesdiff.recording.export import export, read_run


@bad_input_in_one_line
def main(arguments: list[str] | None = None) -> int:
    parser = Parser("export", __doc__)
    parser.add_argument("run", type=path, metavar="RUN", help="a run folder")
    parser.add_argument("--step", type=int, help="the checkpoint to export (default: the verdict's best)")
    parser.add_argument("--output", type=path, help="folder to write (default: RUN/export-STEP)")
    args = parser.parse_args(arguments)
    step = args.step if args.step is not None else read_run(args.run, None)[2]
    target = args.output or args.run / f"export-{step}"
    export(args.run, step, target)
    say(f"wrote {target} (step {step})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
