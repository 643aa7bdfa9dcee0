"""Imports run one way: who may import whom, and what importing the package loads."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ipcae_sklearn"
FILES = sorted(PACKAGE.rglob("*.py"))

# importlib would be a way round this test.
STANDARD_LIBRARY = sys.stdlib_module_names - {"importlib"}


class Allowed(NamedTuple):
    """What a module may import beside the standard library."""

    siblings: str
    packages: str
    packages_in_functions: str = ""  # loaded by those who call the function


# From the bottom up; docs/design.md draws it.
TABLE = {
    "_functional": Allowed("", "numpy scipy torch"),
    "_modules": Allowed("_functional", "torch"),
    "_warnings": Allowed("", ""),
    "_graphs": Allowed("_warnings", "torch"),
    "_noise": Allowed("_functional", "numpy torch"),
    "_decoding": Allowed("_graphs _modules _noise", "numpy torch"),
    "_local_search": Allowed("_decoding _noise", "numpy torch"),
    "_training": Allowed(
        "_decoding _functional _graphs _local_search _noise", "numpy torch"
    ),
    "_numbers": Allowed("", "numpy"),
    "_data": Allowed("_warnings", "numpy scipy torch"),
    "_batches": Allowed("_data", "numpy sklearn torch"),
    "_targets": Allowed("_data _warnings", "numpy sklearn torch"),
    "_greedy": Allowed("_parameters", "numpy scipy"),
    "_parameters": Allowed("", "numpy"),
    "_callbacks": Allowed("", "sklearn"),
    "_display": Allowed("", "numpy", "matplotlib"),
    "datasets": Allowed("_parameters", "numpy sklearn"),
    "_regression": Allowed("_graphs", "numpy torch"),
    "_advice": Allowed("_greedy _regression", "numpy torch"),
    "_directions": Allowed("_data _targets", "numpy torch"),
    "_problem": Allowed("_batches _data _directions _targets _warnings", "numpy torch"),
    "_context": Allowed("", "torch"),
    "_predictor": Allowed("_context _data _modules", "numpy scipy torch"),
    "_settings": Allowed(
        "_decoding _modules _parameters _warnings", "numpy sklearn torch"
    ),
    "_selectors": Allowed(
        "_advice _problem _functional _modules _decoding _training _data _context "
        "_predictor _settings _parameters _callbacks _targets _warnings _numbers",
        "numpy scipy sklearn torch",
    ),
    "_search": Allowed(
        "_problem _data _parameters _selectors _warnings",
        "joblib numpy scipy sklearn torch",
    ),
    "__init__": Allowed("_greedy _display datasets _selectors _search", ""),
}


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported_names(node):
    """The full names that an import statement may load, this package's as "." names.

    ``from a import b`` may load module a.b or only a; both are named.
    """
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = "." * node.level + (node.module or "")
        if base == "." or base == PACKAGE.name:
            names = [f"{PACKAGE.name}.{alias.name}" for alias in node.names]
        else:
            names = [base]
    own = f"{PACKAGE.name}."
    return ["." + n.removeprefix(own) if n.startswith(own) else n for n in names]


def find_imports(tree, in_function=False):
    """Every import statement, and whether it is inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name in imported_names(node):
                yield name, in_function
        inside = in_function or isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef)
        )
        yield from find_imports(node, inside)


def violations(source, allowed):
    """The imports in a source text that are not allowed."""
    siblings = {f".{name}" for name in allowed.siblings.split()}
    packages = STANDARD_LIBRARY | set(allowed.packages.split())
    deferred = packages | set(allowed.packages_in_functions.split())
    found = []
    for name, in_function in find_imports(ast.parse(source)):
        if name.startswith("."):
            permitted = name in siblings
        else:
            permitted = name.split(".")[0] in (deferred if in_function else packages)
        if not permitted:
            found.append(name)
    return found


def test_every_file_is_in_the_table():
    assert FILES
    unknown = {module_name(path) for path in FILES} - set(TABLE)
    assert not unknown, f"say in TABLE what these may import: {sorted(unknown)}"


def test_table_has_no_cycle():
    graph = {name: allowed.siblings.split() for name, allowed in TABLE.items()}
    assert set(TopologicalSorter(graph).static_order()) == set(TABLE)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_are_in_the_table(path):
    name = module_name(path)
    found = violations(path.read_text(encoding="utf-8"), TABLE[name])
    assert not found, f"{name} must not import {found}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import math, torch.nn.functional as F", []),
        ("from ipcae_sklearn._functional import gumbel", []),
        ("from ipcae_sklearn import _functional", []),
        ("from . import _functional", []),
        ("from ._functional import gumbel", []),
        ("def plot():\n    import matplotlib.pyplot as plt", []),
        ("from ipcae_sklearn._modules import Decoder", ["._modules"]),
        ("from ipcae_sklearn import _functional, _data", ["._data"]),
        ("from . import _functional, _data", ["._data"]),
        ("from ._data import Rows", ["._data"]),
        ("from .. import other", [".."]),
        ("import ipcae_sklearn._data", ["._data"]),
        ("import ipcae_sklearn", ["ipcae_sklearn"]),
        ("from ipcae_sklearn import IPCAESelector", [".IPCAESelector"]),
        ("import matplotlib", ["matplotlib"]),
        ("class A:\n    import matplotlib", ["matplotlib"]),
        ("if TYPE_CHECKING:\n    from sklearn.base import clone", ["sklearn.base"]),
        ("def f():\n    import sklearn, ipcae_sklearn._data", ["sklearn", "._data"]),
        ("try:\n    pass\nfinally:\n    import pandas", ["pandas"]),
        ("import importlib", ["importlib"]),
    ],
)
def test_checker_finds_what_is_planted(source, expected):
    allowed = Allowed("_functional", "torch", "matplotlib")
    assert violations(source, allowed) == expected


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_does_not_load_matplotlib():
    code = "import sys, ipcae_sklearn; print('matplotlib' in sys.modules)"
    assert run_python(code) == "False"


def test_import_needs_neither_matplotlib_nor_pandas():
    # Whether pandas is loaded says nothing: scikit-learn loads it wherever it is
    # installed. So it is made impossible to import; scikit-learn copes.
    code = (
        "import sys;"
        "sys.modules.update(matplotlib=None, pandas=None);"
        "import ipcae_sklearn"
    )
    run_python(code)
