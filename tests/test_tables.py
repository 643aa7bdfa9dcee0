"""Figures in the documentation are those of the committed results."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_tables_are_not_stale():
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"run python benchmarks/tables.py ({run.stderr})"
