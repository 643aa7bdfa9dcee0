"""What a training step costs, over the floor of training the decoder alone.

The floor is a bare torch loop that trains the same decoder, with the same optimizer and
batches, on k columns that are already chosen. Both are timed in turn, in one process
and on one thread; quoted is the median over rounds of the ratio of their times, with
its quartiles. Beside it stands the least ratio that is possible: the floor plus the
selector's matrix products (X Mᵀ and its gradient; for IP-CAE those of the map, too) at
the rate that a large product reaches in the same run. ``python benchmarks/speed.py``
appends to ``results/speed.jsonl``.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from common import Results, parser
from ipcae_sklearn import CAESelector, IPCAESelector
from ipcae_sklearn import _functional as functional
from ipcae_sklearn._decoding import AdamW
from ipcae_sklearn._modules import ConcreteAutoencoder, MLPDecoder
from ipcae_sklearn._training import _make_noise, _search_step

# Shapes of the cases. The rates are zero: a decoder that had learned its one batch by
# heart would have gradients of subnormal numbers, with which a processor is slow.
CASES = {
    "coil20": {"p": 1024, "b": 16, "outputs": None},
    "isolet": {"p": 617, "b": 128, "outputs": 26},
    "mnist": {"p": 784, "b": 256, "outputs": 10},
    "arcene": {"p": 10_000, "b": 16, "outputs": 2},
    "dexter": {"p": 20_000, "b": 16, "outputs": 2},
    "p=100,000": {"p": 100_000, "b": 64, "outputs": 2},
    "p=1,000,000": {"p": 1_000_000, "b": 64, "outputs": 2},
}
K = 50


def our_step(selector, p, b, outputs):
    """A function that takes one step of the search, in the middle of it."""
    task = "reconstruction" if outputs is None else "classification"
    options = selector._training_options(10_000, task)
    options = replace(options, learning_rate=0.0, selector_learning_rate=0.0)
    generators = [torch.Generator().manual_seed(0)]
    logits = selector._make_logits([K], p, generators, [None])
    decoder = MLPDecoder([K], (200,), outputs or p, generators)
    model = ConcreteAutoencoder(logits, decoder, [K])
    optimizer = AdamW(model, options)
    noise = _make_noise(model, options, [0], 0)
    X, target, loss = batch(p, b, outputs)
    space = functional.workspace(1, K, p, X.device)

    @torch.no_grad()
    def step():
        own = model, optimizer, (X, target, None), loss, options, noise
        _search_step(*own, temperature=0.5, masks=None, space=space)

    return step


def floor_step(p, b, outputs):
    """A function that takes one step of training the decoder on chosen columns."""
    X, target, _ = batch(p, b, outputs)
    selected = X[:, :K].contiguous()
    decoder = nn.Sequential(
        nn.Linear(K, 200),
        nn.LayerNorm(200),
        nn.LeakyReLU(0.2),
        nn.Linear(200, outputs or p),
    )
    loss = nn.MSELoss() if outputs is None else nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=0.0, fused=True)

    def step():
        optimizer.zero_grad()
        loss(decoder(selected), target).backward()
        optimizer.step()

    return step


def batch(p, b, outputs):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(b, p, generator=generator)
    if outputs is None:
        return X, X, functional.squared_error
    return X, torch.arange(b) % outputs, functional.cross_entropy


def seconds(step, n):
    started = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - started) / n


def bandwidth():
    """Bytes a second of copying an array that no cache holds, read and written."""
    source = torch.zeros(2**26)
    copy = torch.empty_like(source)
    times = [seconds(lambda: copy.copy_(source), 1) for _ in range(7)]
    return 2 * 4 * len(source) / np.median(times)


def matrix_rate():
    """Operations a second of the product of two large matrices."""
    A, B = torch.randn(2, 1024, 1024)
    times = [seconds(lambda: A @ B, 3) for _ in range(7)]
    return 2 * 1024**3 / np.median(times)


def operations(cls, p, b):
    """Operations of the selector's matrix products in a step, forward and backward."""
    products = 2 * 2 * b * K * p
    if cls is IPCAESelector:
        products += 3 * 2 * K * cls(K).embedding_dim * p
    return products


def measure(cls, p, b, outputs, rounds):
    ours = our_step(cls(K), p, b, outputs)
    floor = floor_step(p, b, outputs)
    n = max(3, int(0.2 / max(seconds(ours, 3), 1e-4)))  # about 0.2 s a turn
    times = np.array([(seconds(ours, n), seconds(floor, n)) for _ in range(rounds)])
    ratio = times[:, 0] / times[:, 1]
    return {
        "step_ms": 1e3 * np.median(times[:, 0]),
        "floor_ms": 1e3 * np.median(times[:, 1]),
        "selector_ms": 1e3 * np.median(times[:, 0] - times[:, 1]),
        "ratio": np.median(ratio),
        "ratio_quartiles": np.percentile(ratio, [25, 75]).tolist(),
    }


def main():
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    results = Results("speed", "python benchmarks/speed.py")
    bytes_a_second, rate = bandwidth(), matrix_rate()
    for name, case in CASES.items():
        if options.quick and case["p"] > 20_000:
            continue
        for cls in (IPCAESelector, CAESelector):
            figures = measure(cls, **case, rounds=3 if options.quick else 11)
            passes = figures["selector_ms"] / 1e3 * bytes_a_second / (4 * K * case["p"])
            figures |= {"passes": passes, "bandwidth_gb": bytes_a_second / 1e9}
            products_ms = 1e3 * operations(cls, case["p"], case["b"]) / rate
            figures["least_ratio"] = 1 + products_ms / figures["floor_ms"]
            figures["matrix_gflops"] = rate / 1e9
            key = {"case": name, "method": cls.__name__}
            results.add(**key, k=K, **case, **figures)
            print(
                f"{name:12} {cls.__name__:14} step {figures['step_ms']:9.3f} ms"
                f"  floor {figures['floor_ms']:8.3f} ms  ratio {figures['ratio']:6.2f}"
                f"  (least {figures['least_ratio']:.2f})"
                f"  selector = {passes:.1f} passes over (k, p)"
            )


if __name__ == "__main__":
    main()
