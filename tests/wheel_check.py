"""The wheel in an environment of its own, used from a folder that is not the checkout. ``make wheel-check``.

The environment has the wheel alone; its dependencies are those of the Python that runs this, seen through a ``.pth``
file behind the wheel's own packages. Nothing is downloaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_HELP = 2.0
"""Seconds of CPU that a --help may take."""
CURVE = "step,dino\n0,0.1\n50,0.5\n100,0.8\n150,0.8\n200,0.3\n250,0.2\n300,0.3\n350,0.8\n400,0.8\n450,0.8\n"
OK, BAD_INPUT, FOUND = (0,), (2,), (0, 3, 10)
ASKED: list[tuple[list[str], tuple[int, ...]]] = [
    (["--version"], OK),
    (["run", "+experiment=smoke"], OK),
    (["verdict", "curve.csv"], FOUND),
    (["verdict", "none.csv"], BAD_INPUT),
    (["claims", "results/none"], BAD_INPUT),
    (["tables", "results/none"], BAD_INPUT),
    (["status", "figure_1"], OK),
    (["study", "figure_1", "--dry-run"], OK),
    (["study", "figre_1", "--dry-run"], BAD_INPUT),
    (["calibration", "none.yaml"], BAD_INPUT),
]


def environment(folder: Path) -> Path:
    """A virtual environment with the wheel of this checkout; returns its folder of scripts."""
    python = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*python, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True)
    venv.create(folder / "venv", with_pip=False)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    (wheel,) = folder.glob("*.whl")
    scripts = folder / "venv" / "bin"
    subprocess.run([*python, "--python", scripts / "python", "install", "--no-deps", "--no-index", wheel], check=True)
    (own / "zz_dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return scripts


def ask(command: list[str], cwd: Path) -> tuple[subprocess.CompletedProcess[str], float, float]:
    """What a command says, its seconds by the clock, and those of the CPU."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    before, start = os.times(), time.monotonic()
    done = subprocess.run(command, cwd=cwd, env=env | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}, capture_output=True, text=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return done, time.monotonic() - start, cpu


def main() -> int:
    wrong = []
    with tempfile.TemporaryDirectory() as name:
        scripts = environment(Path(name))
        desk = Path(name) / "elsewhere"
        desk.mkdir()
        (desk / "curve.csv").write_text(CURVE)
        where = ask([str(scripts / "python"), "-c", "import bayesdiff; print(bayesdiff.__file__)"], desk)[0].stdout.strip()
        print(where)
        if not where.startswith(name):
            wrong.append(f"the package is {where}, not the wheel's")
        helps = sorted(path for path in scripts.iterdir() if path.name.startswith("bayesdiff"))
        names = ask([str(scripts / "bayesdiff"), "--help"], desk)[0].stdout
        commands = [line.split()[0] for line in names.splitlines() if line.startswith("  ") and line[2] not in " -"]
        for words in [[str(path)] for path in helps] + [[str(scripts / "bayesdiff"), command] for command in commands]:
            done, wall, cpu = ask([*words, "--help"], desk)
            print(f"{' '.join([Path(words[0]).name, *words[1:]]):<24} --help  {wall:5.2f} s, {cpu:5.2f} s of CPU")
            if done.returncode or cpu > LONGEST_HELP:
                wrong.append(f"{words} --help: exit code {done.returncode}, {cpu:.2f} s of CPU\n{done.stderr[-500:]}")
        for words, codes in ASKED:
            done, wall, _ = ask([str(scripts / "bayesdiff"), *words], desk)
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [""]
            print(f"bayesdiff {' '.join(words)}: exit code {done.returncode}, {wall:.1f} s: {last[0][:150]}")
            if done.returncode not in codes or "Traceback" in done.stderr or "[Errno" in done.stderr:
                wrong.append(f"{words}: exit code {done.returncode}\n{done.stdout[-300:]}\n{done.stderr[-1500:]}")
    print("\n".join(wrong) or "the wheel does what the checkout does")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
