"""Tables and pictures in the documentation are those of the committed results."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("script", ["tables", "paper_figures"])
def test_documentation_is_not_stale(script):
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"run python benchmarks/{script}.py ({run.stderr})"
