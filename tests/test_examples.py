"""Every example runs, quietly, and does what it says."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_quickstart_prints_a_table_and_saves_a_picture(tmp_path, capsys):
    example = runpy.run_path(str(EXAMPLES / "quickstart.py"))
    picture = tmp_path / "picture.png"
    main = example["main"]
    selectors = example["IPCAESelector"]
    # A short search: the example's own budget is for people, not for the tests.
    main.__globals__.update(
        PICTURE=picture,
        N_PIXELS=[5, 10],
        IPCAESelector=lambda **options: selectors(
            max_iter=15, tuning_iter=3, learning_rate_selector=0.1, **options
        ),
    )
    main()
    lines = capsys.readouterr().out.splitlines()
    columns = ["selector", "k", "cross-validated", "test", "search, s"]
    assert lines[1].split() == " ".join(columns).split()
    for name in ("IPCAESelector", "SelectKBest", "random pixels"):
        assert sum(line.startswith(name) for line in lines) == 2
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name
)
def test_example_needs_nothing_beside_it(path):
    """Examples import the public package only, so that a user can copy them."""
    source = path.read_text()
    assert "ipcae_sklearn._" not in source
    code = f"import ast; ast.parse(open({str(path)!r}).read())"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
