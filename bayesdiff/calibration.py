"""How often is the verdict wrong, and how small a stage does it find? Simulated, with noise measured on real runs.

Command:  python -m bayesdiff.calibration experiments/detector_calibration.yaml   (make calibration)
"""

from __future__ import annotations

import sys
from dataclasses import replace

from bayesdiff.core.arguments import Parser, path
from bayesdiff.core.errors import bad_input_in_one_line
from bayesdiff.studies.calibration import PARTS, calibrate, load_study, write


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = Parser("calibration", __doc__)
    parser.add_argument("study", type=path)
    parser.add_argument("--workers", type=int, help="processes (default: the study's)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these tables (default: all, and the picture)")
    arguments = parser.parse_args(argv)
    study = load_study(arguments.study)
    if arguments.workers:
        study = replace(study, workers=arguments.workers)
    tables = calibrate(study, arguments.parts)
    write(tables, study)
    if "false_flags" not in tables:
        return 0
    over = tables["false_flags"].query("upper_95 > @study.bound")
    print(f"{len(over)} of {len(tables['false_flags'])} cells have an upper bound above {study.bound}")
    print(over.to_string(index=False) if len(over) else f"tables and picture in {study.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
