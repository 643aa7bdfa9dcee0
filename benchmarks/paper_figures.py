"""Figures of docs/paper.md, from ``results/paper.jsonl`` alone.

``python benchmarks/paper_figures.py`` writes them into docs/figures; with ``--check``
it only says whether what is there was drawn from other values. matplotlib is needed:
``pip install ipcae-sklearn[plot]``.
"""

import hashlib
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from tables import ROOT, of, paper_records

FIGURES = ROOT / "docs" / "figures"
COIL20 = {"data": "coil20", "task": "reconstruction"}
COLORS = {
    "CAE": "tab:red",
    "CAE, IP-CAE's start": "tab:orange",
    "CAE, selector rate 0.03": "tab:green",
    "IP-CAE": "tab:blue",
}
LOSS = {"reconstruction": "mean squared error", "classification": "cross-entropy"}


def curves():
    """Loss on held-out rows and distinct columns, epoch by epoch: COIL-20."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
    for (task, loss), (above, below) in zip(LOSS.items(), axes.T, strict=True):
        for method, color in COLORS.items():
            records = paper_records("main", data="coil20", task=task, method=method)
            for i, r in enumerate(records):
                style = {"color": color, "lw": 1, "label": None if i else method}
                above.semilogy(r["validation_loss"], **style)
                below.plot(100 * np.array(r["unique_fraction"]), **style)
        above.set(title=f"COIL-20, {task}", ylabel=f"{loss}, held-out rows")
        below.set(ylabel="distinct columns, %", xlabel="epoch")
    axes[1, 0].legend(fontsize="small", loc="lower right")
    return figure


def moves():
    """The error against how far an epoch moves the logits."""
    records = paper_records("main", **COIL20) + paper_records("ablation", **COIL20)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for label, color in {"CAE": "tab:red", "IP-CAE": "tab:blue"}.items():
        own = [r for r in records if parameterization(r["method"]) == label]
        x = [np.mean(r["logit_epoch"]) for r in own]
        y = [1000 * r["paper_error"] for r in own]
        axes.scatter(x, y, s=16, color=color, label=label)
    for r in of(records, method="CAE", seed=0) + of(records, method="IP-CAE", seed=0):
        place = np.mean(r["logit_epoch"]), 1000 * r["paper_error"]
        right = r["method"] == "IP-CAE"
        axes.annotate(
            f"{r['method']}, the paper's rate",
            place,
            xytext=(0, 8),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize="small",
        )
    axes.set(xscale="log", xlabel="mean change of a logit in an epoch")
    axes.set(ylabel="error, 10⁻³", title="COIL-20, reconstruction")
    axes.margins(0.12)
    axes.legend(title="logits")
    return figure


def parameterization(method):
    """Which logits a method has; None for those that are not in the figure."""
    if "columns" in method or "IPCAESelector" in method or "layer" in method:
        return None
    if "linear decoder" in method:
        return None
    return "CAE" if method.startswith("CAE") else "IP-CAE"


def digest(figure) -> str:
    """Of all values drawn, to six digits, as more may depend on the machine."""
    found = hashlib.sha256()
    for axes in figure.axes:
        drawn = [line.get_xydata() for line in axes.lines]
        drawn += [points.get_offsets() for points in axes.collections]
        for values in drawn:
            found.update(" ".join(f"{x:.6g}" for x in np.ravel(values)).encode())
    return f"sha256 of the values: {found.hexdigest()}"


def main():
    plt.rcParams["svg.hashsalt"] = "ipcae"  # the same file from the same results
    stale = []
    for draw in (curves, moves):
        path, figure = FIGURES / f"paper_{draw.__name__}.svg", draw()
        if "--check" not in sys.argv:
            FIGURES.mkdir(exist_ok=True)
            about = {"Date": None, "Description": digest(figure)}
            figure.savefig(path, metadata=about)
        elif not path.exists() or digest(figure) not in path.read_text():
            stale.append(path.name)
    sys.exit(f"stale: {stale}" if stale else 0)


if __name__ == "__main__":
    main()
