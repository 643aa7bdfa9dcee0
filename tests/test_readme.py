"""The code of the README runs as it stands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run_and_keep_their_promise(capsys):
    namespace = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)
    lines = capsys.readouterr().out.splitlines()
    assert float(lines[0]) > 0.95
    assert float(lines[-1]) > 0.85
    assert len(namespace["selector"].get_support(indices=True)) == 20
    assert namespace["X_64"].shape == namespace["X_test"].shape


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_link_leads_somewhere(target):
    assert (Path(__file__).parents[1] / target).exists()
