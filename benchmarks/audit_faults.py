"""The audit on models with planted faults and on healthy ones, over many seeds: a table of what it said.

Each framework runs in a process of its own, Keras on its backend. A fault is found when the first finding has
its code and names its place; a healthy model is passed when nothing is found at the level of a warning. The
exit code is 1 when anything went wrong.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path

ADAPTERS = Path(__file__).resolve().parent.parent / "tests" / "adapters"
FRAMEWORKS = ("torch", "jax", "keras")


def judged(framework: str, seeds: int) -> None:
    """In the process of one framework: a line of JSON for each verdict."""
    sys.path[:0] = [str(ADAPTERS), str(ADAPTERS / framework)]
    warnings.simplefilter("ignore")
    import audit_cases

    cases = importlib.import_module(f"test_{framework}_audit_faults")
    audit = importlib.import_module(f"fanin.{framework}").audit
    for kind in ("FAULTS", "HEALTHY"):
        for case in getattr(cases, kind):
            for seed in range(seeds):
                start = time.perf_counter()
                verdict = asdict(audit_cases.judge(case, audit, seed))
                more = {"kind": kind, "seed": seed, "seconds": time.perf_counter() - start}
                print(json.dumps(verdict | more), flush=True)


def collected(framework: str, seeds: int) -> list[dict]:
    """The verdicts of one framework; an error of its process is shown and raised."""
    command = [sys.executable, __file__, "--judge", framework, "--seeds", str(seeds)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ.copy())
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    return [json.loads(line) | {"framework": framework} for line in lines]


def table(verdicts: list[dict]):
    """A row for each case: how often it was right, and what else was said."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, title="Planted faults and healthy models")
    for column, justify in {"": "left", "case": "left", "expected": "left", "right": "right"}.items():
        made.add_column(column, justify=justify)
    made.add_column("what was said instead", max_width=60)
    cases = dict.fromkeys((each["framework"], each["kind"], each["name"]) for each in verdicts)
    for framework, kind, name in cases:
        mine = [
            each
            for each in verdicts
            if (each["framework"], each["kind"], each["name"]) == (framework, kind, name)
        ]
        wrong = [f"seed {each['seed']}: {each['found']}" for each in mine if not each["right"]]
        right = f"{len(mine) - len(wrong)}/{len(mine)}"
        made.add_row(framework, name, mine[0]["expected"], right, "\n".join(wrong[:2]))
    return made


def summary(verdicts: list[dict]) -> str:
    """The confusion table's four numbers, in words."""
    words = []
    for kind, what in (
        ("FAULTS", "faults found, cause and place first"),
        ("HEALTHY", "healthy models passed"),
    ):
        mine = [each for each in verdicts if each["kind"] == kind]
        words.append(f"{sum(each['right'] for each in mine)} of {len(mine)} {what}")
    return "; ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--framework", nargs="+", choices=FRAMEWORKS, default=FRAMEWORKS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--judge", choices=FRAMEWORKS, help=argparse.SUPPRESS)  # a process of its own
    arguments = parser.parse_args()
    if arguments.judge:
        judged(arguments.judge, arguments.seeds)
        return
    from rich.console import Console

    verdicts = [each for name in arguments.framework for each in collected(name, arguments.seeds)]
    Console(width=160).print(table(verdicts))
    print(summary(verdicts))
    sys.exit(0 if all(each["right"] for each in verdicts) else 1)


if __name__ == "__main__":
    main()
