"""Tables of the documentation, from the committed results.

``python benchmarks/tables.py`` rewrites what stands between ``<!-- name:begin -->`` and
``<!-- name:end -->`` in README.md and some pages of docs; with ``--check`` it only says
whether that would change anything.
"""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RESULTS = ROOT / "benchmarks" / "results"


def read(name):
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def unique(records, key):
    return list(dict.fromkeys(record[key] for record in records))


def cell(records, key, digits=3, error=False):
    """Mean over the records, with its standard error if asked for."""
    values = [record[key] for record in records if key in record]
    if not values:
        return "–"
    text = f"{np.mean(values):.{digits}f}"
    if error and len(values) > 1:
        text += f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.{digits}f}"
    return text


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


# The tables of downstream scores show each set at the k that evidence exists for.
MAIN_K = {"mice": 10, "communities_crime": 10, "madelon": 20}
OURS = ("IPCAESelector", "CAESelector")
PACKAGES = ("mRMR", "Boruta", "LassoNet", "STG")  # in a table of their own
NO_SELECTION = "all columns"  # beside which none is the best
LARGE = ("mnist_60000",)  # MNIST once more
NAMES = {"F-test": "`SelectKBest`"}
FEW_ROWS = ("arcene", "dexter")  # fewer than 500: the selector holds none out


def downstream_records(protocol, packages=False, other_k=False, **key):
    """Without those of all columns, unless these are asked for."""
    apart = {*(() if packages else PACKAGES), NO_SELECTION} - set(key.values())
    return [
        r
        for r in of(read("downstream"), protocol=protocol, **key)
        if (r["k"] != MAIN_K.get(r["data"], 50)) == other_k and r["method"] not in apart
    ]


def mean_and_error(records, key):
    values = [r[key] for r in records if key in r]
    if not values:
        return np.nan, np.nan
    return np.mean(values), np.std(values, ddof=len(values) > 1) / np.sqrt(len(values))


def is_among_the_best(scores, method, sign=1):
    """Within a standard error of the difference to the best; of (mean, error) each."""
    best = max(scores, key=lambda name: sign * np.nan_to_num(scores[name][0], nan=-9))
    difference = sign * (scores[best][0] - scores[method][0])
    return difference <= np.hypot(scores[best][1], scores[method][1]) + 1e-12


def score_table(protocol, keys, sign=1, digits=3):
    """A line for each method, a column for each data set; the best ones in bold."""
    records = downstream_records(protocol)
    sets = unique(records, "data")
    sets = [d for d in sets if any(keys[0] in r for r in records if r["data"] == d)]
    cells, methods = best_in_bold(records, sets, keys, sign, digits)
    header = [f"{data} ({MAIN_K.get(data, 50)})" for data in sets]
    rows = list(line_up(cells, methods, sets))
    if protocol == "supervised":
        row = [NO_SELECTION]
        for data in sets:
            own = downstream_records(protocol, data=data, method=NO_SELECTION)
            row.append(" / ".join(cell(own, key, digits) for key in keys))
        rows.append(row)
    return markdown(["", *header], rows)


def best_in_bold(records, sets, keys, sign=1, digits=3):
    """The scores of each method and data set, and the methods, ours first."""
    methods = unique(records, "method")
    cells = {}
    for data in sets:
        for key in keys:
            scores = {
                method: mean_and_error(of(records, data=data, method=method), key)
                for method in methods
            }
            for method, (mean, _) in scores.items():
                text = "–" if np.isnan(mean) else f"{mean:.{digits}f}"
                if text != "–" and is_among_the_best(scores, method, sign):
                    text = f"**{text}**"
                cells.setdefault((method, data), []).append(text)
    return cells, [*OURS, *(m for m in methods if m not in OURS)]


def line_up(cells, methods, sets):
    """A row of cells for each method."""
    for method in methods:
        name = f"`{method}`" if method in OURS else method
        yield [name, *(" / ".join(cells[method, data]) for data in sets)]


def genes(k):
    """The same for sets of gene expression, and what there is to say over the sets."""
    records = of(read("genes"), k=k)
    sets = unique(records, "data")
    n_rows = {r["data"]: r["n_rows"] for r in records}
    cells, methods = best_in_bold(records, sets, ("svm", "trees"))
    rows = list(line_up(cells, methods, sets))
    for row, method in zip(rows, methods, strict=True):
        own = of(records, method=method)
        row += [over_the_sets(own), f"{shared_columns(own):.1f}"]
        row.append(f"{np.median([r['seconds'] for r in own]):.1f}")
    header = [f"{data} ({n_rows[data]} rows)" for data in sets]
    return markdown(["", *header, "mean", "shared", "seconds"], rows)


def over_the_sets(records):
    """The means over the sets of their mean scores."""
    by_set = [of(records, data=data) for data in unique(records, "data")]
    means = (
        np.mean([mean_and_error(own, key)[0] for own in by_set])
        for key in ("svm", "trees")
    )
    return " / ".join(f"{mean:.3f}" for mean in means)


def shared_columns(records):
    """How many columns the selections from two splits have in common, in the mean."""
    shared = []
    for data in unique(records, "data"):
        kept = [set(r["columns"]) for r in of(records, data=data)]
        shared.append(np.mean([len(a & b) for a, b in combinations(kept, 2)]))
    return np.mean(shared)


def genes_in_short():
    """For the README: the means over the sets."""
    records = read("genes")
    methods = (*OURS, "F-test", "trees", "RFE linear", "mRMR", "greedy")
    rows = [
        [k, *(over_the_sets(of(records, k=k, method=method)) for method in methods)]
        for k in unique(records, "k")
    ]
    names = [f"`{method}`" for method in OURS] + ["`SelectKBest`", *methods[3:]]
    return markdown(["k", *names], rows)


def downstream_seconds():
    """Seconds of our own fits, and what else they tell."""
    rows = []
    for protocol in ("supervised", "unsupervised"):
        records = downstream_records(protocol)
        for data in unique(records, "data"):
            row = [f"{data}, {protocol}"]
            for method in OURS:
                own = of(records, data=data, method=method)
                share = 100 * mean_and_error(own, "unique")[0]
                # The median: other programs may have run beside one of the fits.
                seconds = np.median([r["seconds"] for r in own])
                row += [f"{seconds:.1f}", cell(own, "joint"), f"{share:.0f} %"]
            rows.append(row)
    header = [f"`{m}`: {c}" for m in OURS for c in ("seconds", "decoder", "distinct")]
    return markdown(["data", *header], rows)


def seeds_of_downstream():
    """How many seeds each set has: they are measured one after the other."""
    records = [r for p in ("supervised", "unsupervised") for r in downstream_records(p)]
    count = {
        data: len({r["seed"] for r in records if r["data"] == data})
        for data in unique(records, "data")
    }
    return ", ".join(f"{data} {n}" for data, n in count.items())


def packages():
    """Selectors of other packages, each beside ours on the seeds that it ran with."""
    records = downstream_records("supervised", packages=True)
    rows = []
    for package in PACKAGES:
        for data in unique(of(records, method=package), "data"):
            theirs = of(records, method=package, data=data)
            seeds = {r["seed"] for r in theirs}
            row = [package, f"{data} ({MAIN_K.get(data, 50)})", len(seeds)]
            for method in (package, *OURS):
                own = [
                    r
                    for r in of(records, data=data, method=method)
                    if r["seed"] in seeds
                ]
                scores = f"{cell(own, 'svm')} / {cell(own, 'trees')}"
                row.append(f"{scores} ({cell(own, 'seconds', 0)} s)")
            rows.append(row)
    header = ["package", "data (k)", "seeds", "its columns"]
    return markdown([*header, *(f"`{m}`" for m in OURS)], rows)


# What the package set out to reach, SVM and trees; of the decoder the accuracy.
AIMS = {
    ("supervised", "mice"): (0.68, 0.65),
    ("supervised", "madelon"): (0.87, 0.92),
    ("supervised", "communities_crime"): (0.665, 0.66),
    ("supervised", "usps"): (0.943, 0.932),
    ("supervised", "isolet"): (0.948, 0.935),
    ("supervised", "arcene"): (0.80, 0.83),
    ("supervised", "dexter"): (0.90, 0.92),
    ("supervised", "mnist_60000"): (0.955, 0.960),
    ("unsupervised", "isolet"): (0.925, 0.915),
}
AIM_OF_DECODER = ("mnist_60000", 0.970)


def aims():
    """The aims beside what was reached, by ours, by others and with all columns."""
    rows = []
    for (protocol, data), aim in AIMS.items():
        own = downstream_records(protocol, data=data)
        others = [m for m in unique(own, "method") if m not in OURS]
        row = [f"{data} ({MAIN_K.get(data, 50)}), {protocol}"]
        row.append(" / ".join(f"{value:.3f}" for value in aim))
        row += [reached(of(own, method=m), ("svm", "trees"), aim) for m in OURS]
        best = (
            max(mean_and_error(of(own, method=m), key)[0] for m in others)
            for key in ("svm", "trees")
        )
        row.append(" / ".join(f"{value:.3f}" for value in best))
        every = downstream_records("supervised", data=data, method=NO_SELECTION)
        row.append(" / ".join(cell(every, key) for key in ("svm", "trees")))
        rows.append(row)
    data, aim = AIM_OF_DECODER
    own = downstream_records("supervised", data=data)
    row = [f"{data} (50), decoder", f"{aim:.3f}"]
    row += [reached(of(own, method=m), ("joint",), (aim,)) for m in OURS]
    rows.append([*row, "–", "–"])
    header = ["data (k)", "aim", *(f"`{m}`" for m in OURS)]
    return markdown([*header, "best of the others", "all columns"], rows)


def reached(records, keys, aim):
    """Means, in bold where they reach the aim."""
    means = [round(mean_and_error(records, key)[0], 3) for key in keys]
    return " / ".join(
        f"**{mean:.3f}**" if mean >= wanted else f"{mean:.3f}"
        for mean, wanted in zip(means, aim, strict=True)
    )


def summary():
    """For the README: ours beside SelectKBest and the best of all others."""
    return beside_the_best(downstream_records("supervised"), "F-test")


def lead():
    """How far the first of ours is ahead of each other method, over the data sets, of
    which MNIST counts once; how often each is among the best; and seconds.
    """
    records = downstream_records("supervised")
    records += downstream_records("supervised", method=NO_SELECTION)
    records = [r for r in records if r["data"] not in LARGE]
    sets, keys = unique(records, "data"), ("svm", "trees")
    methods = [m for m in unique(records, "method") if m not in OURS]
    methods = [*OURS, *methods]
    scores = {
        (data, key, m): mean_and_error(of(records, data=data, method=m), key)
        for data in sets
        for key in keys
        for m in methods
    }
    n_best = dict.fromkeys(methods, 0)
    for data in sets:
        for key in keys:
            own = {m: scores[data, key, m] for m in methods if m != NO_SELECTION}
            for m in own:
                n_best[m] += is_among_the_best(own, m)
    rows = []
    for m in methods:
        row = [f"`{m}`" if m in OURS else NAMES.get(m, m)]
        for key in keys:
            points = [
                100 * (scores[data, key, OURS[0]][0] - scores[data, key, m][0])
                for data in sets
            ]
            mean, error = np.mean(points), np.std(points, ddof=1) / np.sqrt(len(sets))
            row.append("–" if m == OURS[0] else f"{mean:+.1f} ± {error:.1f}")
        seconds = sorted(
            np.median([r["seconds"] for r in of(records, data=data, method=m)])
            for data in sets
        )
        row += [f"{n_best[m]} of {len(sets) * len(keys)}"]
        row += [f"{short(seconds[0])} to {short(seconds[-1])}"]
        rows.append(row if m != NO_SELECTION else [*row[:3], "–", "–"])
    header = ["", "lead, SVM", "lead, trees", "best or level", "seconds"]
    return markdown(header, rows)


def short(seconds):
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"


def other_k(protocol, simple):
    """The same at the k that the other tables do not show."""
    records = downstream_records(protocol, other_k=True)
    sets = unique(downstream_records(protocol), "data")
    records.sort(key=lambda r: (sets.index(r["data"]), r["k"]))
    return beside_the_best(records, simple)


def beside_the_best(records, simple):
    """Ours beside a simple method and the best others, for each set and k."""
    rows, keys = [], ("svm", "trees")
    for data, k in dict.fromkeys((r["data"], r["k"]) for r in records):
        own = of(records, data=data, k=k)
        cells, methods = best_in_bold(own, [data], keys)
        row = [f"{data} ({k})"]
        missing = ["–"] * len(keys)
        row += [" / ".join(cells.get((m, data), missing)) for m in (*OURS, simple)]
        others = [m for m in methods if m not in OURS]
        for i, key in enumerate(keys):
            mean = {m: mean_and_error(of(own, method=m), key)[0] for m in others}
            best = max(mean, key=lambda m: mean[m])
            row.append(f"{cells[best, data][i]} ({best})")
        rows.append(row)
    name = NAMES.get(simple, simple)
    header = ["data (k)", *(f"`{m}`" for m in OURS), name]
    return markdown([*header, "best other, SVM", "best other, trees"], rows)


JITTER, NO_JITTER = "noise on the inputs", "no noise on the inputs"
CANDIDATES, ALL_COLUMNS = "among candidates", "among all columns"
ONE_STEP, FOUR_STEPS = "one step of the decoder", "four steps of the decoder"
SHARE_HELD_OUT, ROWS_HELD_OUT = "15 per cent held out", "500 rows held out"
JUDGED, ON_ALL_ROWS = "decoder as judged", "decoder tuned on all rows"
# Those that have tables of their own.
PAIRS = (
    (NO_JITTER, JITTER),
    (ALL_COLUMNS, CANDIDATES),
    (ONE_STEP, FOUR_STEPS),
    (SHARE_HELD_OUT, ROWS_HELD_OUT),
    (JUDGED, ON_ALL_ROWS),
)
# What they show: the name of a value, and digits.
OF_MODELS = {"SVM": ("svm", 3), "trees": ("trees", 3)}
DECODER = {"decoder": ("decoder", 3)}


def choices():
    """Scores on held-out training rows with some parameters changed."""
    of_their_own = {variant for pair in PAIRS for variant in pair}
    of_their_own.update(SETTINGS)
    records = [
        r
        for r in read("choices")
        if r["variant"] not in of_their_own and not r["data"].endswith(NO_TARGET)
    ]
    rows = []
    for data in unique(records, "data"):
        for variant in unique(of(records, data=data), "variant"):
            row = [data, variant]
            for method in OURS:
                own = of(records, data=data, variant=variant, method=method)
                scores = f"{cell(own, 'svm')} / {cell(own, 'trees')}"
                held_out = "–" if data in FEW_ROWS else cell(own, "validation_loss")
                row += [scores, held_out, cell(own, "seconds", 1)]
            rows.append(row)
    header = [
        f"`{m}`: {c}" for m in OURS for c in ("scores", "held-out loss", "seconds")
    ]
    return markdown(["data", "parameters", *header], rows)


def input_noise():
    """The decoder without noise on its inputs in the tuning, and with it."""
    columns = {
        "accuracy": ("decoder", 3),
        "loss not trained on": ("validation_loss", 3),
    }
    return from_one_to_another(NO_JITTER, JITTER, columns)


def candidates():
    """The search among all columns, and among candidates."""
    columns = OF_MODELS | {"seconds": ("seconds", 0)}
    return from_one_to_another(ALL_COLUMNS, CANDIDATES, columns)


def decoder_steps():
    """One step of the decoder for each of the selector, and four."""
    columns = OF_MODELS | DECODER | {"seconds": ("seconds", 1)}
    return from_one_to_another(ONE_STEP, FOUR_STEPS, columns)


def rows_held_out():
    """A share of the rows held out, and at least 500 of them."""
    return from_one_to_another(SHARE_HELD_OUT, ROWS_HELD_OUT, OF_MODELS | DECODER)


def last_tuning():
    """The decoder as held-out rows judged it, and once it has learned from them."""
    columns = DECODER | {"seconds": ("seconds", 1)}
    return from_one_to_another(JUDGED, ON_ALL_ROWS, columns)


# What chose the budget, the rates and the start: the variants, beside the default.
SETTINGS = (
    "one epoch of the search",
    "500 steps of the search",
    "4,000 steps of the search",
    "1,000 steps of the tuning",
    "a third of the selector's rate",
    "thrice the selector's rate",
    "d = 8",
    "d = 128",
    "noise of each batch",
    "rows begin at greedy columns",
    "7 trials",
    "28 trials",
    "no local search, no target",
)
NO_TARGET = ", no target"


def settings(without_target):
    """Of each variant the differences to the default, over sets and seeds.

    With a target without mice, where they are up to 24 points, either way.
    """
    records = [
        r
        for r in read("choices")
        if r["data"].endswith(NO_TARGET) == without_target and r["data"] != "mice"
    ]
    default = "default" if without_target else ON_ALL_ROWS
    reference = {
        (r["data"], r["method"], r["seed"]): r for r in of(records, variant=default)
    }
    if without_target:
        shown = {"linear MSE, %": ("linear_mse", lambda r: 100 / r["linear_mse"])}
    else:
        shown = {
            name: (name_of, lambda r: 100)
            for name, name_of in (("SVM", "svm"), ("trees", "trees"))
        }
    shown["decoder"] = "decoder", lambda r: 100
    shown["held-out loss, %"] = "validation_loss", lambda r: 100 / r["validation_loss"]
    rows = []
    for variant in SETTINGS:
        row = [variant.removesuffix(NO_TARGET)]
        for method in OURS:
            own = of(records, variant=variant, method=method)
            pairs = [(r, reference[r["data"], method, r["seed"]]) for r in own]
            row += [difference(pairs, *one) for one in shown.values()]
            row.append(times(pairs))
        if any(text != "–" for text in row[1:]):
            rows.append(row)
    header = [f"`{m}`: {name}" for m in OURS for name in (*shown, "seconds")]
    return markdown(["", *header], rows)


def difference(pairs, name, unit):
    """Mean of differences to the default, with its standard error over sets and seeds.

    ``unit`` are hundredths of what is counted, from the record of the default.
    """
    if not pairs:
        return "–"
    values = [unit(other) * (own[name] - other[name]) for own, other in pairs]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):+.1f} ± {error:.1f}"


def times(pairs):
    """How many times the seconds of the default: the median and quartiles."""
    if not pairs:
        return "–"
    ratios = [own["seconds"] / r["seconds"] for own, r in pairs]
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return f"{median:.2f} ({low:.2f}–{high:.2f})"


def from_one_to_another(one, another, columns):
    """Of two variants of the choices the means of some values, side by side."""
    records = [r for r in read("choices") if r["variant"] in (one, another)]
    rows = []
    for data in unique(records, "data"):
        row = [data, len(unique(of(records, data=data), "seed"))]
        for method in OURS:
            pair = [
                of(records, data=data, method=method, variant=variant)
                for variant in (one, another)
            ]
            for name, digits in columns.values():
                row.append(" → ".join(cell(own, name, digits) for own in pair))
        rows.append(row)
    header = [f"`{m}`: {name}" for m in OURS for name in columns]
    return markdown(["data", "seeds", *header], rows)


def planted():
    records = read("planted")
    methods = unique(records, "method")
    rows = []
    for data in unique(records, "data"):
        row = [data]
        for method in methods:
            own = [r for r in records if (r["data"], r["method"]) == (data, method)]
            row.append(f"{cell(own, 'recovered', 2)} ({cell(own, 'seconds', 1)} s)")
        rows.append(row)
    return markdown(["data", *methods], rows)


def speed():
    """The step on the last machine that it was measured on; on others the ratio."""
    newest, machines = {}, []
    for r in of(read("speed"), on="cpu"):
        processor = r["machine"]["processor"]
        newest[processor, r["case"], r["method"]] = r
        machines = [*(m for m in machines if m != processor), processor]
    *others, last = machines
    rows = []
    for (processor, *key), r in newest.items():
        if processor != last:
            continue
        elsewhere = (newest.get((other, *key)) for other in others)
        rows.append(
            [
                f"{r['case']} (p {r['p']:,}, b {r['b']})",
                f"`{r['method']}`",
                f"{r['step_ms']:.2f} / {r['floor_ms']:.2f}",
                ratio_of(r),
                passes_of(r),
                f"{r['operations'] / 1e6:.1f} M, {r['bytes'] / 1e6:.2f} MB",
                shares(r),
                *(f(x) for x in elsewhere for f in (ratio_of, passes_of)),
            ]
        )
    header = ["shape", "selector", "step / floor (ms)", "ratio (quartiles; least)"]
    header += ["passes", "operations, bytes", "shares of the rates"]
    for processor in others:
        name = re.sub(r"\(R\)| Processor", "", processor)
        header += [f"{name}: ratio", f"{name}: passes"]
    return markdown(header, rows)


def ratio_of(record):
    """Step over floor, with its quartiles and what the products alone would make."""
    if record is None:
        return "–"
    low, high = record["ratio_quartiles"]
    return f"{record['ratio']:.2f} ({low:.2f}–{high:.2f}; {record['least_ratio']:.2f})"


def passes_of(record):
    """Of the selector's own time over its array."""
    if record is None:
        return "–"
    return f"{record['passes']:.{0 if record['passes'] >= 10 else 1}f}"


def shares(record):
    """What the selector's own time makes of the rates of products and of memory."""
    if record["ratio_quartiles"][0] < 1.05:  # not to be told from the noise
        return "–"
    seconds = record["selector_ms"] / 1e3
    pairs = ("operations", "matrix_gflops"), ("bytes", "bandwidth_gb")
    return " / ".join(
        f"{100 * record[n] / seconds / (1e9 * record[rate]):.0f} %" for n, rate in pairs
    )


def speed_cuda():
    header = ["shape", "selector", "step (ms)", "floor (ms)", "ratio"]
    header += ["floor as a graph (ms)", "ratio to that"]
    header += ["selector's own time, in passes over its (k, p) array"]
    rows = []
    for r in of(read("speed"), on="cuda"):
        values = (r[key] for key in ("step_ms", "floor_ms", "ratio"))
        others = (r[key] for key in ("graph_floor_ms", "graph_ratio"))
        row = [f"{r['case']} (p {r['p']:,}, b {r['b']})", f"`{r['method']}`"]
        row += [f"{value:.2f}" for value in (*values, *others)]
        rows.append([*row, f"{r['passes']:.0f}"])
    return markdown(header, rows)


def cuda_fits():
    """Whole fits, each way: seconds and score, and how near losses are to the CPU's."""
    records = of(read("cuda"), part="fit")
    ways = unique(records, "way")
    rows = []
    for data in unique(records, "data"):
        pair = {r["way"]: r for r in of(records, data=data, seed=0)}
        cells = [
            f"{pair[w]['seconds']:.1f} s, {pair[w]['score']:.3f}" if w in pair else "–"
            for w in ways
        ]
        both = [pair[way] for way in ("cuda", "cpu")]
        own, reference = (np.array(r["first_losses"]) for r in both)
        apart = np.abs(own / reference - 1).max()
        common = len(set.intersection(*(set(r["columns"]) for r in both)))
        rows.append([data, *cells, f"{apart:.0e}", f"{common} of {pair['cuda']['k']}"])
        rows[-1].append(f"{pair['cuda']['utilisation']:.0f} %")
    header = ["data", *ways, "losses apart", "columns in common", "GPU busy"]
    return markdown(header, rows)


def time_to_quality():
    records = read("time_to_quality")
    rows = []
    for data in unique(records, "data"):
        own = {r["method"]: r for r in records if r["data"] == data}
        for method, r in own.items():
            score = "accuracy" if "accuracy" in r else "mse"
            times = "–"
            if "paper" in own and "Selector" in method:
                times = f"{own['paper']['seconds'] / r['seconds']:.0f} ×"
            rows.append(
                [
                    data,
                    f"`{method}`" if method in OURS else method,
                    f"{score} {r[score]:.4f}",
                    f"{r['seconds']:.1f}",
                    times,
                    cell([r], "peak_mb", 0),
                    percent([r], "unique") if "Selector" in method else "–",
                ]
            )
    rows.sort(key=lambda row: row[0])
    header = ["data", "protocol", "test score", "seconds", "faster than the paper's"]
    header += ["peak memory (MB)", "distinct before repair"]
    return markdown(header, rows)


SEARCHES = ["data", "k", "`IPCAESelectorCV` (s)", "`GridSearchCV` (s)", "ratio"]


def search():
    """Both searches over k, seed by seed."""
    header = [*SEARCHES, "mean scores", "of `GridSearchCV`"]
    return markdown(header, rows_of_searches("search", "GridSearchCV"))


def cuda_search():
    """The search on a GPU, and as a grid search there and on two cores."""
    on_gpu = rows_of_searches("cuda", "GridSearchCV")
    on_cores = rows_of_searches("cuda", "GridSearchCV, cpu")
    rows = [
        [*first[:-2], *second[3:5], *first[-2:], second[-1]]
        for first, second in zip(on_gpu, on_cores, strict=True)
    ]
    header = [*SEARCHES, "`GridSearchCV` on two cores (s)", "ratio", "mean scores"]
    return markdown([*header, "of `GridSearchCV`", "on two cores"], rows)


def rows_of_searches(name, method):
    """A row for each data set, values of k and seed that both searches have."""
    records = [r for r in read(name) if r["part"] == "search" and r["data"] != "digits"]
    rows = []
    for ours in of(records, method="IPCAESelectorCV"):
        same = {key: ours[key] for key in ("data", "ks", "seed")}
        for grid in of(records, method=method, **same):
            scores = (
                " ".join(f"{score:.3f}" for score in r["mean_scores"])
                for r in (ours, grid)
            )
            seconds, others = ours["seconds"], grid["seconds"]
            rows.append(
                [
                    f"{ours['data']}, seed {ours['seed']}",
                    ", ".join(map(str, ours["ks"])),
                    f"{seconds:.1f}",
                    f"{others:.0f}",
                    f"{others / seconds:.2f}",
                    *scores,
                ]
            )
    return rows


def agreement():
    """Scores of both searches on digits, and how they differ, over the seeds."""
    records = [r for r in read("search") if r["part"] == "search"]
    ours, grid = (
        {r["seed"]: r for r in of(records, data="digits", method=method)}
        for method in ("IPCAESelectorCV", "GridSearchCV")
    )
    seeds = sorted(ours.keys() & grid.keys())
    scores = [np.array([r[s]["mean_scores"] for s in seeds]) for r in (ours, grid)]
    difference = scores[0] - scores[1]
    error = difference.std(axis=0, ddof=1) / np.sqrt(len(seeds))
    rows = [
        [
            ours[seeds[0]]["ks"][i],
            f"{scores[0][:, i].mean():.4f}",
            f"{scores[1][:, i].mean():.4f}",
            f"{difference[:, i].mean():+.4f} ± {error[i]:.4f}",
        ]
        for i in range(len(error))
    ]
    seconds = np.median(
        [[r[s]["seconds"] for s in seeds] for r in (ours, grid)], axis=1
    )
    ratio = np.median([grid[s]["seconds"] / ours[s]["seconds"] for s in seeds])
    last = ["seconds, median", *(f"{value:.0f}" for value in seconds)]
    rows.append([*last, f"ratio {ratio:.2f}"])
    header = [f"k, {len(seeds)} seeds", "`IPCAESelectorCV`", "`GridSearchCV`"]
    return markdown([*header, "difference"], rows)


def restarts():
    records = [r for r in read("search") if r["part"] == "restarts"]
    rows = [
        [
            f"{data} ({own[0]['k']})",
            n_init,
            len(own),
            cell(own, "validation_loss", error=True),
            cell(own, "test_accuracy", 4),
            cell(own, "seconds", 1),
        ]
        for data in unique(records, "data")
        for n_init in unique(records, "n_init")
        for own in [of(records, data=data, n_init=n_init)]
    ]
    header = ["data (k)", "`n_init`", "seeds", "held-out loss", "test accuracy"]
    return markdown([*header, "seconds"], rows)


def begin_large():
    """Each k with rows of its own, with those of the largest, with hardly a search."""
    records = [r for r in read("search") if r["part"] == "begin large"]
    variants = unique(records, "variant")
    rows = [
        [
            f"{data} ({k})",
            *(_accuracy_and_seconds(of(own, variant=v)) for v in variants),
        ]
        for data in unique(records, "data")
        for k in unique(of(records, data=data), "k")
        for own in [of(records, data=data, k=k)]
    ]
    return markdown(["data (k)", *variants], rows)


def _accuracy_and_seconds(records):
    if not records:
        return "–"
    accuracy = cell(records, "accuracy", error=True)
    return f"{accuracy} ({cell(records, 'processor_seconds', 1)} s)"


SCALE_STUDIES = ("p", "n", "k", "r", "wide", "dexter", "reconstruction")


def scale(study):
    """Cost of a fit against the quantity that the study is named after."""
    varied = study if study in ("n", "k", "r") else "p"
    header = [varied, "selector", "seconds", "grows as"]
    header += ["data (MB)", "peak above (MB)", "in (r, k, p) arrays"]
    found = {"dexter": "accuracy", "reconstruction": "factors found"}
    header += [found.get(study, "planted found"), "rows settled"]
    rows, last = [], {}
    records = [r for r in read("scale") if r["study"] == study]
    for r in sorted(records, key=lambda r: r[varied]):
        name = scaled_name(r)
        before, last[name] = last.get(name), r
        rows.append(
            [
                f"{r[varied]:,}",
                name,
                f"{r['seconds']:.1f}",
                exponent(before, r, varied),
                f"{r['data_mb']:.0f}",
                f"{r['peak_mb']:.0f}",
                f"{r['arrays']:.0f}",
                cell([r], "accuracy" if study == "dexter" else "recovered", 2),
                {True: "yes", False: "no"}.get(r.get("converged"), "–"),
            ]
        )
    order = list(last)
    rows.sort(key=lambda row: order.index(row[1]))
    return markdown(header, rows)


def by_side(records, key, side, n_sides):
    """The records of each key, in a list for each side that they are on."""
    sides_of = {}
    for r in records:
        own = tuple(r[name] for name in key)
        sides_of.setdefault(own, [[] for _ in range(n_sides)])[side(r)].append(r)
    return sides_of


def from_to(sides, shown):
    """Cells with the means of all sides, for each (name, digits) shown."""
    return [
        " → ".join(cell(side, name, digits) for side in sides) for name, digits in shown
    ]


def directions():
    """A reconstruction with directions for outputs, and with columns."""
    header = ["rows", "p", "selector", "seeds", "seconds", "R² of the decoder"]
    header += ["linear MSE"]
    shown = ("seconds", 1), ("score", 3), ("linear_mse", 4)
    side = {"columns": 0, "directions": 1}
    records = read("directions")
    key = "case", "method"
    sides_of = by_side(records, key, lambda r: side[r["outputs"]], len(side))
    rows = []
    for (case, method), sides in sorted(sides_of.items()):
        own = [case, f"{sides[0][0]['p']:,}", f"`{method}`", len(sides[0])]
        rows.append(own + from_to(sides, shown))
    return markdown(header, rows)


def few_rows(task_is_shown, metrics, names):
    """What is kept of few rows, by ours and by others, in means."""
    by_case = {}
    for r in read("few_rows"):
        if task_is_shown(r["task"]):
            by_case.setdefault(r["case"], {}).setdefault(r["method"], []).append(r)
    rows = []
    for case, found in by_case.items():
        first = found["IPCAESelector"]
        cells = [
            " / ".join(cell(found[name], metric, digits) for metric, digits in metrics)
            for name in names
        ]
        rows.append([case, first[0]["n_rows"], first[0]["k"], len(first), *cells])
    shown = [f"`{name}`" if name.endswith("Selector") else name for name in names]
    return markdown(["data", "rows", "k", "seeds", *shown], rows)


def few_rows_with_target():
    names = ["no swaps", "IPCAESelector", "CAESelector", "F-test", "trees"]
    names += ["RFE linear", "greedy", "greedy + swaps"]
    metrics = ("svm", 3), ("trees", 3)
    return few_rows(lambda task: task != "reconstruction", metrics, names)


def few_rows_without():
    names = ["no swaps", "IPCAESelector", "CAESelector", "variance", "greedy"]
    names += ["greedy + swaps"]
    return few_rows(lambda task: task == "reconstruction", [("linear_mse", 4)], names)


def few_rows_decoder():
    """Tuned to the end of the schedule, as long as folds tell, and with swaps."""
    header = ["data", "score", "−log probability", "epochs of tuning", "seconds"]
    shown = ("score", 3), ("log_loss", 2), ("tuning_epochs", 0), ("fit_seconds", 1)
    side = {"no folds": 0, "no swaps": 1, "IPCAESelector": 2}
    records = [r for r in read("few_rows") if r["method"] in side]
    sides_of = by_side(records, ["case"], lambda r: side[r["method"]], len(side))
    rows = [[case, *from_to(sides, shown)] for (case,), sides in sides_of.items()]
    return markdown(header, rows)


def scaled_name(record):
    method = f"`{record['method']}`"
    if record["data"] in ("memmap", "csr"):
        method += f", {record['data']}"
    parameters = record["parameters"]
    if record["study"] == "p" and parameters:
        method += ", " + ", ".join(f"{k}={v!r}" for k, v in parameters.items())
    if record["study"] == "n" and not parameters:
        method += ", steps by default"
    return method


def exponent(before, record, varied):
    """The power of the varied quantity with which the time has grown."""
    if before is None:
        return "–"
    growth = np.log(record["seconds"] / before["seconds"])
    return f"{varied}^{growth / np.log(record[varied] / before[varied]):.2f}"


def measured_on():
    machines = {
        (
            r["machine"]["processor"],
            r["machine"]["cores"],
            r["machine"]["device"],
            str(r["machine"]["versions"]),
        )
        for path in sorted(RESULTS.glob("*.jsonl"))
        for r in read(path.stem)
    }
    lines = []
    for processor, cores, device, versions in sorted(machines):
        gpu = "" if device == "cpu" else f", {device}"
        lines.append(f"- {processor}, {cores} cores{gpu}; {versions.strip('{}')}")
    return "\n".join(lines).replace("'", "")


def of(records, **key):
    return [r for r in records if key.items() <= r.items()]


def paper_records(experiment, **key):
    return of(read("paper"), experiment=experiment, **key)


def without_lesser_gjsd(records):
    """Of the weights of GJSD, the one with the best validation loss at seed 0."""
    tried = [r for r in records if "GJSD" in r["method"]]
    at_0 = of(tried, seed=0)
    best = min(at_0, key=lambda r: min(r["validation_loss"]))["method"] if at_0 else ""
    return [r for r in records if r not in tried or r["method"] == best]


def with_time_to_cae(record, records):
    """The record with the first epoch at which it is as good as CAE ever was, and how
    many times sooner that is, by time, than for CAE itself.

    Of two models it is the loss on the held-out rows that counts; of CAE, the run with
    the same seed and noise.
    """
    name = "CAE, noise per row" if "per row" in record["method"] else "CAE"
    cae = of(records, method=name, seed=record["seed"])
    if not cae or "columns" in record["method"]:
        return record
    level = min(cae[0]["validation_loss"])
    reached = np.flatnonzero(np.array(record["validation_loss"]) <= level)
    if not len(reached):
        return record
    epoch = 1 + int(reached[0])
    seconds = record["seconds"] * epoch / record["epochs"]
    own = cae[0]["seconds"] * cae[0]["kept_epoch"] / cae[0]["epochs"]
    return record | {"reached": epoch, "sooner": own / seconds}


SCORES = {"reconstruction": "error, 10⁻³", "classification": "accuracy, %"}


def score_cell(records):
    """The paper's error in thousandths, or the accuracy in percent."""
    if "accuracy" in records[0]:
        return cell([{"x": 100 * r["accuracy"]} for r in records], "x", 2, error=True)
    return cell([{"x": 1000 * r["paper_error"]} for r in records], "x", 3, error=True)


def percent(records, key):
    return cell([{key: 100 * r[key]} for r in records], key, 0) + " %"


def paper_main(data, task):
    records = without_lesser_gjsd(paper_records("main", data=data, task=task))
    if not records:
        return "Not run yet."
    records = [with_time_to_cae(r, records) for r in records]
    rows = [
        [
            f"`{method}`" if method == "IPCAESelector" else method,
            len(own),
            score_cell(own),
            cell(own, "mse", 5),
            percent(own, "unique"),
            cell(own, "mean_max_probability", 2),
            cell(own, "reached", 0),
            cell(own, "sooner", 1),
            cell(own, "seconds", 0),
        ]
        for method in unique(records, "method")
        for own in [of(records, method=method)]
    ]
    header = ["method", "seeds", SCORES[task], "MSE", "distinct", "largest probability"]
    header += ["epochs to CAE's best", "times sooner than CAE", "seconds"]
    drop = header.index("MSE") if task == "classification" else None
    lines = [[c for i, c in enumerate(line) if i != drop] for line in [header, *rows]]
    return markdown(lines[0], lines[1:])


def paper_ablation(data, task):
    """Every setting tried, by how far it moves the logits in an epoch."""
    key = {"data": data, "task": task}
    ablation = paper_records("ablation", **key)
    if not ablation:
        return "Not run yet."
    records = paper_records("main", **key) + ablation
    trained = [
        r | {name: np.mean(r[name]) for name in ("logit_step", "logit_epoch")}
        for r in records
        if "columns" not in r["method"] and "IPCAESelector" not in r["method"]
    ]
    rows = [
        [
            method,
            len(own),
            cell(own, "logit_step", 4),
            cell(own, "logit_epoch", 3),
            score_cell(own),
            percent(own, "unique"),
            cell(own, "mean_max_probability", 2),
            cell(own, "seconds", 0),
        ]
        for method in unique(trained, "method")
        for own in [of(trained, method=method)]
    ]
    header = ["method", "seeds", "a step moves a logit by", "an epoch by"]
    header += [SCORES[task], "distinct", "largest probability", "seconds"]
    return markdown(header, sorted(rows, key=lambda row: float(row[3])))


def paper_retrained():
    records, rows = paper_records("retrained"), []
    for task, data in dict.fromkeys((r["task"], r["data"]) for r in records):
        for method in unique(of(records, task=task, data=data), "method"):
            own = of(records, task=task, data=data, method=method)
            joint = [
                j
                for r in own
                for j in paper_records(
                    "main", **{name: r[name] for name in ("data", "task", "seed")}
                )
                if j["method"] == method
            ]
            scores = score_cell(joint), score_cell(own)
            rows.append([f"{data}, {task}", method, len(own), *scores])
    rows.sort(key=lambda row: row[0])
    header = ["data", "columns of", "seeds", "joint decoder", "retrained"]
    return markdown(header, rows) if rows else "Not run yet."


TABLES = {
    **{
        f"paper_{data}_{task}".replace(" ", "_"): partial(paper_main, data, task)
        for data in ("coil20", "mice", "mice by mouse", "isolet", "mnist")
        for task in ("reconstruction", "classification")
    },
    "paper_ablation": partial(paper_ablation, "coil20", "reconstruction"),
    "paper_ablation_isolet": partial(paper_ablation, "isolet", "classification"),
    "paper_retrained": paper_retrained,
    "summary": summary,
    "aims": aims,
    "lead": lead,
    "seeds_of_downstream": seeds_of_downstream,
    "downstream_supervised": partial(score_table, "supervised", ("svm", "trees")),
    "downstream_unsupervised": partial(score_table, "unsupervised", ("svm", "trees")),
    "downstream_mse": partial(score_table, "unsupervised", ("linear_mse",), -1, 5),
    "downstream_nmi": partial(score_table, "unsupervised", ("nmi",)),
    "downstream_other_k": partial(other_k, "supervised", "F-test"),
    "downstream_other_k_unsupervised": partial(other_k, "unsupervised", "variance"),
    "downstream_seconds": downstream_seconds,
    "downstream_packages": packages,
    "choices": choices,
    "input_noise": input_noise,
    "candidates": candidates,
    "decoder_steps": decoder_steps,
    "rows_held_out": rows_held_out,
    "last_tuning": last_tuning,
    "settings": partial(settings, without_target=False),
    "settings_without_target": partial(settings, without_target=True),
    "genes_10": partial(genes, 10),
    "genes_50": partial(genes, 50),
    "genes_in_short": genes_in_short,
    "planted": planted,
    "speed": speed,
    "speed_cuda": speed_cuda,
    "cuda_fits": cuda_fits,
    "cuda_search": cuda_search,
    "time_to_quality": time_to_quality,
    "search": search,
    "agreement": agreement,
    "restarts": restarts,
    "begin_large": begin_large,
    "directions": directions,
    "few_rows_with_target": few_rows_with_target,
    "few_rows_without": few_rows_without,
    "few_rows_decoder": few_rows_decoder,
    **{f"scale_{s}": partial(scale, s) for s in SCALE_STUDIES},
    "measured_on": measured_on,
}


def filled(text):
    """The text of a page with its tables made anew."""
    for name, table in TABLES.items():
        marks = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if marks[0] in text:
            body = f"{marks[0]}\n{table()}\n{marks[1]}"
            pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
            text = re.sub(pattern, lambda _, body=body: body, text, flags=re.DOTALL)
    return text


def main():
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if "--check" in sys.argv:
        sys.exit(f"stale: {[page.name for page in stale]}" if stale else 0)
    for page in stale:
        page.write_text(filled(page.read_text()))


if __name__ == "__main__":
    main()
