"""Kill, starve and damage a small study, and compare what it ends as with one that was left alone: ``make soak``.

    python -m tests.soak [--kills 200] [--damages 60] [--errnos 10] [--workers 4] [--seed 0] [--only sites random …]

Four workers share the study. Each of them, and each run, is killed before every kind of write that it comes to, and at random
moments; every kind of write fails once with every kind of error; files are damaged between two starts; records are spoiled.
The same command is given again until the study is done. The exit code is 0 where nothing is lost, doubled, silently
different or left over, and no traceback was seen.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

from tests.soak.parts import PARTS, Size, Soak


def _spent(began: float) -> str:
    """Seconds since then, and of CPU by this process and all that it waited for."""
    return f"{time.monotonic() - began:.0f} s, {sum(os.times()[:4]):.0f} s of CPU"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Size):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=field.default)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--keep", action="store_true", help="leave the folder, and say where it is")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        soak = Soak(folder, Size(*(getattr(arguments, field.name) for field in fields(Size))))
        print(f"undisturbed: {_spent(began)}", flush=True)
        for name in arguments.only:
            PARTS[name](soak)
            print(f"{name}: {_spent(began)} in all; {dict(soak.counts)}, wrong: {len(soak.wrong)}", flush=True)
        soak.report()
    finally:
        if arguments.keep:
            print(folder)
        else:
            shutil.rmtree(folder)
    print(_spent(began))
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
