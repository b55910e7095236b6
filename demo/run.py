# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the demo scene through all three phases, and plain FastGS beside it; renders, measures, compares.

    python demo/run.py [--iterations N]

Calls the product's own commands, as a user would. Starts over each time.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS = 1500
"""Both runs together stay below five minutes on two cores."""
TESTS = 15
"""Points of the report's curve of PSNR."""


@dataclass(frozen=True)
class Method:
    """One run of the demo: its title, its folder below output/, its flags."""

    title: str
    folder: str
    flags: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where the run is written, relative to the project."""
        return Path("output") / self.folder


METHODS = (
    Method("three phases", "demo", ("--qwen_model_path", "embedded")),
    Method("plain FastGS", "demo_fastgs", ("--phases", "none")),
)


def command(*arguments: str) -> float:
    """Run one of the product's commands; its wall time in seconds. Its failure ends the demo with its exit code."""
    print("$ python " + " ".join(arguments), flush=True)
    began = time.monotonic()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return time.monotonic() - began


def count_gaussians(run: Path, iteration: int) -> int:
    """Number of Gaussians in the header of the final PLY."""
    with (run / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply").open("rb") as file:
        for line in file:
            if line.startswith(b"element vertex"):
                return int(line.split()[2])
    raise ValueError(f"{run}: no vertex count in the PLY")


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns, the first to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )


def result_row(method: Method, iteration: int, seconds: float) -> tuple[str, ...]:
    """A method's line in the table."""
    figures = json.loads((ROOT / method.path / "results.json").read_text())[f"ours_{iteration}"]
    lpips = "-" if figures["LPIPS"] is None else f"{figures['LPIPS']:.3f}"
    count = count_gaussians(ROOT / method.path, iteration)
    return method.title, f"{figures['PSNR']:.2f}", f"{figures['SSIM']:.3f}", lpips, f"{count:,}", f"{seconds:.0f} s"


def main() -> None:
    """The demo."""
    parser = argparse.ArgumentParser(description="Train, render and measure the demo scene twice and compare.")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    iterations = parser.parse_args().iterations
    rows = [("held-out views", "PSNR", "SSIM", "LPIPS", "Gaussians", "training")]
    for method in METHODS:
        model = str(method.path)
        tested = [str(round(iterations * k / TESTS)) for k in range(1, TESTS + 1)]
        run = ("--model_path", model, "--iterations", str(iterations), "--test_iterations", *tested, "--overwrite")
        seconds = command("train.py", "--source", "demo", *run, *method.flags)
        command("render.py", "-m", model, "--quiet")
        command("metrics.py", "-m", model, "--quiet")
        rows.append(result_row(method, iterations, seconds))
    command("-m", "utils.report", *(str(method.path) for method in METHODS))

    print(f"\n{table(rows)}\n")
    print(f"{iterations} iterations each. The language model of phase 2 is the tiny one that ships here, not Qwen's.")
    if rows[1][3] == "-":
        print("LPIPS needs weights: `make lpips` fetches them.")
    print(f"Report: {ROOT / METHODS[0].path / 'report.html'}")


if __name__ == "__main__":
    main()
