"""What the benchmark scripts share: data, results on disk, and the machine's name.

Data sets are read from the directory named by ``--data`` (default: the environment
variable ``IPCAE_DATA``, else ``../shared/data``), one ``.npz`` file each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from ipcae_sklearn.datasets import load_benchmark

RESULTS = Path(__file__).parent / "results"


@dataclass
class Split:
    """Training and test rows of a data set, scaled to [0, 1] on training rows."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    groups_train: np.ndarray | None = None  # individuals, where rows come in groups


def load_split(
    name: str,
    data_home,
    seed: int = 0,
    *,
    scale: bool = True,
    by_group: bool = True,
) -> Split:
    """The official split where there is one, else 80/20, stratified or by group.

    Columns are scaled to [0, 1] by the range of the training rows, unless not asked to.
    "mnist" has the first 10,000 training rows (drawn at random in the original order
    of the set), "mnist_60000" all of them. Missing values are replaced by the training
    rows' median.
    """
    is_mnist = name in ("mnist", "mnist_60000")
    data = load_benchmark("mnist" if is_mnist else name, data_home=data_home)
    groups = None
    if "X_train" in data:
        X_train, y_train = data.X_train, data.y_train
        X_test, y_test = data.X_test, data.y_test
    else:
        train, test = _split_rows(data, seed, by_group)
        X_train, y_train = data.X[train], data.y[train]
        X_test, y_test = data.X[test], data.y[test]
        groups = data.groups[train] if by_group and "groups" in data else None
    if name == "mnist":
        X_train, y_train = X_train[:10_000], y_train[:10_000]
    X_train, X_test = X_train.astype(np.float64), X_test.astype(np.float64)
    if np.isnan(X_train).any() or np.isnan(X_test).any():
        imputer = SimpleImputer(strategy="median").fit(X_train)
        X_train, X_test = imputer.transform(X_train), imputer.transform(X_test)
    if not scale:
        X_train, X_test = X_train.astype(np.float32), X_test.astype(np.float32)
        return Split(X_train, y_train, X_test, y_test, groups)
    low, high = X_train.min(axis=0), X_train.max(axis=0)
    if is_mnist:
        low, high = np.zeros_like(low), np.full_like(high, 255)
    span = np.where(high > low, high - low, 1)
    return Split(
        ((X_train - low) / span).astype(np.float32),
        y_train,
        np.clip((X_test - low) / span, 0, 1).astype(np.float32),
        y_test,
        groups,
    )


def _split_rows(data, seed, by_group):
    rows = np.arange(len(data.X))
    # Rows of one group are near copies: keep them together.
    if by_group and "groups" in data:
        splitter = GroupShuffleSplit(n_splits=1, test_size=0.2, random_state=seed)
        return next(splitter.split(rows, groups=data.groups))
    few_values = len(np.unique(data.y)) < 50
    stratify = data.y if few_values else None
    return train_test_split(rows, test_size=0.2, stratify=stratify, random_state=seed)


def linear_reconstruction_error(split: Split, columns) -> float:
    """Test mean squared error of the least-squares reconstruction of all columns."""
    mean = split.X_train.mean(axis=0, dtype=np.float64)
    train, test = split.X_train - mean, split.X_test - mean
    weights = np.linalg.lstsq(train[:, columns], train, rcond=None)[0]
    return float(np.mean((test[:, columns] @ weights - test) ** 2))


def with_peak_memory(call, *arguments):
    """What a call returns, and the most bytes resident in it, less those before it.

    Linux only. The ``ru_maxrss`` of getrusage would begin at that of the process that
    started this one, and neither forgets an earlier peak.
    """
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    returned = call(*arguments)
    return returned, resident_bytes("VmHWM") - before


def resident_bytes(kind: str) -> int:
    """Memory of this process; "VmHWM" is the most it has been."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(x.split()[1]) for x in lines if x.startswith(kind))


def machine() -> dict:
    """Where and with what a result was measured."""
    packages = ("ipcae-sklearn", "torch", "scikit-learn", "numpy", "scipy")
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": {name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


class Results:
    """A JSON file of results, a record a line, that a stopped run goes on with.

    Those of a quick run are kept apart, in ``results/quick``.
    """

    def __init__(self, name: str, command: str, *, quick: bool):
        self.path = RESULTS / ("quick" if quick else "") / f"{name}.jsonl"
        self.command = command
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.records = [json.loads(line) for line in lines]

    def find(self, **key) -> list[dict]:
        return [record for record in self.records if key.items() <= record.items()]

    def has(self, **key) -> bool:
        return bool(self.find(**key))

    def add(self, **record) -> None:
        record |= {"command": self.command, "machine": machine()}
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def parser(description: str) -> argparse.ArgumentParser:
    """Options that all scripts have."""
    options = argparse.ArgumentParser(description=description)
    default = os.environ.get("IPCAE_DATA", "../shared/data")
    options.add_argument("--data", default=default, help="directory of the data sets")
    options.add_argument("--seeds", type=int, default=5, help="number of seeds")
    options.add_argument("--quick", action="store_true", help="less, in results/quick")
    return options
