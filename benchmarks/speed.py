"""What a training step costs, over the floor of training the decoder alone.

The floor is a bare torch loop that trains the same decoder, with the same optimizer and
batches, on k columns that are already chosen. Both are timed in turn, in one process
and on one thread; quoted is the median over rounds of the ratio of their times, with
its quartiles. By default the selector takes one step for several of the decoder, among
which its time is shared out. Beside it stands the least ratio that is possible: the
floor plus the selector's matrix products (X Mᵀ and its gradient; for IP-CAE those of
the map, too) at the rate that a large product reaches in the same run. So do the
operations of these products, the bytes that a step cannot do without, and which share
of the machine's rates the selector's own time makes of them.
``python benchmarks/speed.py`` appends to ``results/speed.jsonl``, with
``--device cuda`` the same of a GPU, where our step is a CUDA graph and a second floor
is the bare loop as one.
"""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from common import Results, parser
from ipcae_sklearn import CAESelector, IPCAESelector
from ipcae_sklearn import _functional as functional
from ipcae_sklearn._decoding import AdamW, Setup
from ipcae_sklearn._graphs import replayed
from ipcae_sklearn._modules import ConcreteAutoencoder, MLPDecoder
from ipcae_sklearn._noise import SearchDraws
from ipcae_sklearn._training import _search_step

# With a target and few rows features are hidden, and a part of the columns takes part.
OF_FEW_ROWS = {"hidden": 0.8, "among": 1000}
# Shapes of the cases. "By default" is where there are fewer than 500 rows, of the last
# fewer than 2,000. The rates are zero: a decoder that had learned its one batch by
# heart would have gradients of subnormal numbers, with which a processor is slow.
CASES = {
    "coil20": {"p": 1024, "b": 16, "outputs": None},
    "isolet": {"p": 617, "b": 128, "outputs": 26},
    "mnist": {"p": 784, "b": 256, "outputs": 10},
    "arcene": {"p": 10_000, "b": 16, "outputs": 2},
    "arcene, 4 of 5 hidden": {"p": 10_000, "b": 16, "outputs": 2, "hidden": 0.8},
    "arcene, by default": {"p": 10_000, "b": 16, "outputs": 2, **OF_FEW_ROWS},
    "dexter": {"p": 20_000, "b": 16, "outputs": 2},
    "dexter, 4 of 5 hidden": {"p": 20_000, "b": 16, "outputs": 2, "hidden": 0.8},
    "dexter, by default": {"p": 20_000, "b": 16, "outputs": 2, **OF_FEW_ROWS},
    "p=100,000": {"p": 100_000, "b": 64, "outputs": 2},
    "p=1,000,000": {"p": 1_000_000, "b": 64, "outputs": 2},
    "p=1,000,000, by default": {"p": 1_000_000, "b": 64, "outputs": 2, "among": 8192},
}
K = 50


def our_step(selector, p, b, outputs, device, n_steps, hidden=0.0, among=None):
    """A function that takes so many steps of the decoder and one of the selector, in
    the middle of the search, with a share of the selected features hidden and among
    some of the columns, if not all.
    """
    task = "reconstruction" if outputs is None else "classification"
    options = selector._training_options(10_000, task)
    options = replace(options, dropout=(hidden,))
    generators = [torch.Generator().manual_seed(0)]
    X, target, loss = batch(p, b, outputs, device)
    if among is not None:  # each run has rows of its own
        X, target = X[:, :among].contiguous().unsqueeze(0), target.unsqueeze(0)
    p_searched = X.shape[-1]
    logits = selector._make_logits([K], p_searched, generators, [None])
    decoder = MLPDecoder([K], (200,), outputs or p, generators)
    model = ConcreteAutoencoder(logits, decoder, [K]).to(device)
    draws = SearchDraws([K], options, [0], 0, device)
    space = functional.workspace(1, K, p_searched, device)
    setup = Setup(model, None, loss, options)  # one batch for all steps
    optimizers = AdamW(model.logits, 0.0), AdamW(model.decoder, 0.0)
    own = replayed(partial(_search_step, setup, *optimizers), device, recordable=True)
    X = torch.cat(n_steps * [X], -2)

    @torch.no_grad()
    def step():
        own(X, *draws(n_steps * b, p_searched), 0.5, space, *n_steps * (target, None))

    return step


def floor_step(p, b, outputs, device):
    """A function that takes one step of training the decoder on chosen columns."""
    X, target, _ = batch(p, b, outputs, device)
    selected = X[:, :K].contiguous()
    decoder = nn.Sequential(
        nn.Linear(K, 200),
        nn.LayerNorm(200),
        nn.LeakyReLU(0.2),
        nn.Linear(200, outputs or p),
    ).to(device)
    loss = nn.MSELoss() if outputs is None else nn.CrossEntropyLoss()
    own = {"fused": True, "capturable": device.type == "cuda"}
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=0.0, **own)

    def step():
        optimizer.zero_grad()
        value = loss(decoder(selected), target)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def batch(p, b, outputs, device):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(b, p, generator=generator).to(device)
    if outputs is None:
        return X, X, functional.squared_error
    return X, torch.arange(b, device=device) % outputs, functional.cross_entropy


def seconds(step, n, device):
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    for _ in range(n):
        step()
    wait()
    return (time.perf_counter() - started) / n


def bandwidth(device):
    """Bytes a second of copying an array that no cache holds, read and written."""
    source = torch.zeros(2**26, device=device)
    copy = torch.empty_like(source)
    times = [seconds(lambda: copy.copy_(source), 1, device) for _ in range(7)]
    return 2 * 4 * len(source) / np.median(times)


def matrix_rate(device):
    """Operations a second of the product of two large matrices."""
    size = 8192 if device.type == "cuda" else 1024
    A, B = torch.randn(2, size, size, device=device)
    times = [seconds(lambda: A @ B, 3, device) for _ in range(7)]
    return 2 * size**3 / np.median(times)


def n_decoder_steps(p, b, among=None):
    """Steps of the decoder for one of the selector, by default."""
    selector = CAESelector(K, batch_size=b)
    return selector._resolve_decoder_steps(nn.Linear(K, 1), 10_000, among or p)


def operations(cls, p, b, hidden=0.0, among=None):
    """Operations of the selector's matrix products for a step of the decoder, forward
    and backward.
    """
    n_steps, p = n_decoder_steps(p, b, among), among or p
    a_row = 2 * 2 * b * p
    if cls is IPCAESelector:
        a_row += 3 * 2 * cls(K).embedding_dim * p / n_steps
    return (1 - hidden) * K * a_row


def least_bytes(cls, p, b, hidden=0.0, among=None):
    """Bytes that the selector's own part of a step of the decoder reads and writes, if
    nothing is gone through twice that need not be.

    Of (k, p) arrays: the noise and the logits are read, the relaxation is written, and
    read for the product and for the gradient, which is written. The optimizer reads
    four arrays of the parameters' size and writes three. For IP-CAE the logits are
    written before, from the parameters, and the gradient is read twice for those of the
    parameters, which are read for it and whose gradients are written.
    """
    n_steps, p = n_decoder_steps(p, b, among), among or p
    passes, of_parameters = 6, 7 * K * p
    if cls is IPCAESelector:
        passes, of_parameters = 9, 10 * cls(K).embedding_dim * (K + p)
    of_arrays = (1 - hidden) * passes * K * p + of_parameters
    return 4 * (of_arrays / n_steps + 2 * b * p)


def measure(cls, p, b, outputs, rounds, device, hidden=0.0, among=None):
    own, n_steps = (p, b, outputs, device), n_decoder_steps(p, b, among)
    steps = [our_step(cls(K), *own, n_steps, hidden, among), floor_step(*own)]
    if device.type == "cuda":
        own = floor_step(p, b, outputs, device)
        steps.append(replayed(own, device, recordable=True))
    for step in steps:
        seconds(step, 3, device)  # graphs are recorded
    a_round = sum(seconds(step, 3, device) for step in steps)
    n = max(3, int(0.3 / max(a_round, 1e-4)))  # about 0.3 s a round
    times = [[seconds(step, n, device) for step in steps] for _ in range(rounds)]
    ours, floor, *others = np.array(times).T
    ours /= n_steps
    figures = {
        "n_decoder_steps": n_steps,
        "step_ms": 1e3 * np.median(ours),
        "floor_ms": 1e3 * np.median(floor),
        "selector_ms": 1e3 * np.median(ours - (others or [floor])[0]),
        "ratio": np.median(ours / floor),
        "ratio_quartiles": np.percentile(ours / floor, [25, 75]).tolist(),
    }
    if others:
        figures["graph_floor_ms"] = 1e3 * np.median(others[0])
        figures["graph_ratio"] = np.median(ours / others[0])
    return figures


def shares(figures):
    """Of the rates of matrix products and of memory, if the selector's own time can be
    told from the noise.
    """
    if figures["ratio_quartiles"][0] < 1.05:
        return "– / –"
    seconds = figures["selector_ms"] / 1e3
    rates = 1e9 * figures["matrix_gflops"], 1e9 * figures["bandwidth_gb"]
    done = figures["operations"], figures["bytes"]
    return " / ".join(
        f"{100 * n / seconds / rate:.0f} %" for n, rate in zip(done, rates, strict=True)
    )


def main():
    options = parser(__doc__)
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options = options.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    results = Results(
        "speed", f"python benchmarks/speed.py --device {device}", quick=options.quick
    )
    bytes_a_second, rate = bandwidth(device), matrix_rate(device)
    for name, case in CASES.items():
        if options.quick and case["p"] > 20_000:
            continue
        for cls in (IPCAESelector, CAESelector):
            rounds = 3 if options.quick else 11
            figures = measure(cls, **case, rounds=rounds, device=device)
            passes = figures["selector_ms"] / 1e3 * bytes_a_second / (4 * K * case["p"])
            figures |= {"passes": passes, "bandwidth_gb": bytes_a_second / 1e9}
            shape = {name: case[name] for name in case if name != "outputs"}
            n_operations, n_bytes = operations(cls, **shape), least_bytes(cls, **shape)
            products_ms = 1e3 * n_operations / rate
            figures["least_ratio"] = 1 + products_ms / figures["floor_ms"]
            figures |= {"operations": n_operations, "bytes": n_bytes}
            figures["matrix_gflops"] = rate / 1e9
            key = {"case": name, "method": cls.__name__, "on": device.type}
            results.add(**key, k=K, **case, **figures, seed=0)
            as_a_graph = ""
            if "graph_floor_ms" in figures:
                as_a_graph = f"  floor as a graph {figures['graph_floor_ms']:.3f} ms"
            print(
                f"{name:12} {cls.__name__:14} step {figures['step_ms']:9.3f} ms"
                f"  floor {figures['floor_ms']:8.3f} ms  ratio {figures['ratio']:6.2f}"
                f"  (least {figures['least_ratio']:.2f})"
                f"  {n_operations / 1e6:.1f} M operations, {n_bytes / 1e6:.2f} MB,"
                f" {shares(figures)} of the machine's rates"
                f"  selector = {passes:.1f} passes over (k, p){as_a_graph}",
                flush=True,
            )


if __name__ == "__main__":
    main()
