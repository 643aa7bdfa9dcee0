"""The modules of r concrete autoencoders that train side by side.

Every parameter has a leading run axis r. Run i owns row i of it, drawn from its own
generator at its own size and padded with zeros where another run selects more
features, so that a run is the same alone and in company. No module here knows a
loss, an optimizer or how it is trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ipcae_sklearn._functional import by_autograd

aten = torch.ops.aten
_EPSILON = 1e-5  # of the layer normalisation, torch's own

# Turns the gradient of a module's output into that of its input (None for a module
# without one, and where it is called with ``to_input=False``) and of its parameters,
# in the order of :func:`trainable` (None for a user's that have no use; none at all
# where it is called with ``to_own=False``).
Pullback = Callable[..., tuple[Tensor | None, list[Tensor | None]]]

MAPS = ("shared", "per_row", "full", "diagonal", "scalar")


def _stack(per_run: Sequence[Tensor]) -> nn.Parameter:
    """One parameter with a leading run axis, zero-padded to the largest run."""
    if len({t.shape for t in per_run}) == 1:
        return nn.Parameter(torch.stack(list(per_run)))
    size = [max(sizes) for sizes in zip(*(t.shape for t in per_run), strict=True)]
    stacked = per_run[0].new_zeros(len(per_run), *size)
    for row, t in zip(stacked, per_run, strict=True):
        row[tuple(slice(s) for s in t.shape)] = t
    return nn.Parameter(stacked)


def _kept(parameter, indices: Sequence[Tensor], dim: int = 0) -> nn.Parameter:
    """Some of each run's values along a dimension, as a new parameter."""
    values = parameter.detach()
    chosen = zip(values, (i.to(values.device) for i in indices), strict=True)
    return _stack([own.index_select(dim, index) for own, index in chosen])


def _rows_of(values: Tensor, rows: Tensor | None) -> Tensor:
    """Some rows (r, m) of values (r, k, ...); all where ``rows`` is None."""
    if rows is None:
        return values
    return values[torch.arange(len(rows), device=rows.device).unsqueeze(-1), rows]


def _in_their_rows(values: Tensor, rows: Tensor | None, every: Tensor) -> Tensor:
    """Zeros of the shape of ``every`` with values (r, m, ...) in some rows (r, m)."""
    if rows is None:
        return values
    index = rows.unsqueeze(-1).expand_as(values)
    return torch.zeros_like(every).scatter_(1, index, values)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that are not frozen."""
    return [p for p in module.parameters() if p.requires_grad]


def _copy(target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:  # copy_ would broadcast
        raise ValueError(f"expected shape {tuple(target.shape)}, got {source.shape}")
    target.copy_(source)


def _uniform(*shape: int, fan_in: int, generator: torch.Generator) -> Tensor:
    """The initial values of ``nn.Linear``, weight and bias alike."""
    bound = 1 / math.sqrt(max(fan_in, 1))
    return torch.empty(shape, dtype=torch.float32).uniform_(
        -bound, bound, generator=generator
    )


def _linear(z: Tensor, weight: Tensor, bias: Tensor | None, out=None) -> Tensor:
    """r linear maps: (r, b, n_in), (r, n_out, n_in), (r, 1, n_out) -> (r, b, n_out)."""
    product = torch.bmm(z, weight.mT, out=out)
    return product if bias is None else product.add_(bias)


class _Linear(nn.Module):
    """r linear layers: (r, b, n_in) -> (r, b, n_out)."""

    def __init__(self, n_in: Sequence[int], n_out: int, generators):
        super().__init__()
        weights, biases = zip(
            *(
                (
                    _uniform(n_out, n, fan_in=n, generator=g),
                    _uniform(1, n_out, fan_in=n, generator=g),
                )
                for n, g in zip(n_in, generators, strict=True)
            ),
            strict=True,
        )
        self.weight, self.bias = _stack(weights), _stack(biases)

    def forward(self, z: Tensor) -> Tensor:
        return _linear(z, self.weight, self.bias)

    def with_pullback(self, z: Tensor):
        def pullback(grad, to_input=True, to_own=True):
            own = [torch.bmm(grad.mT, z), grad.sum(1, keepdim=True)] if to_own else []
            return torch.bmm(grad, self.weight) if to_input else None, own

        return self.forward(z), pullback


class _LayerNorm(nn.Module):
    """r layer normalisations over the last axis: (r, b, h) -> (r, b, h)."""

    def __init__(self, n_runs: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_runs, 1, width, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(n_runs, 1, width, dtype=torch.float32))

    def forward(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.bias, F.layer_norm(z, z.shape[-1:]), self.weight)

    def with_pullback(self, z: Tensor):
        width = z.shape[-1:]
        if len(z) == 1:  # torch can do all of it at once
            affine = self.weight.flatten(), self.bias.flatten()
            value, *moments = aten.native_layer_norm(z, width, *affine, _EPSILON)

            def pullback(grad, to_own=True):
                saved, wanted = (z, width, *moments, *affine), [True, to_own, to_own]
                grad, *own = aten.native_layer_norm_backward(grad, *saved, wanted)
                return grad, [g.view_as(self.weight) for g in own if to_own]

            return value, pullback
        normal, *moments = aten.native_layer_norm(z, width, None, None, _EPSILON)

        def pullback_of_runs(grad, to_own=True):
            own = []
            if to_own:
                own = [(grad * normal).sum(1, keepdim=True), grad.sum(1, keepdim=True)]
            inner = grad.mul_(self.weight), z, width, *moments, None, None
            grad = aten.native_layer_norm_backward(*inner, [True, False, False])[0]
            return grad, own

        return torch.addcmul(self.bias, normal, self.weight), pullback_of_runs


class _LeakyReLU(nn.LeakyReLU):
    def with_pullback(self, z: Tensor):
        value = F.leaky_relu_(z, self.negative_slope)  # in place: nobody else needs z

        def pullback(grad, to_own=True):
            slope = self.negative_slope
            return aten.leaky_relu_backward(grad, value, slope, True), []

        return value, pullback


class MLPDecoder(nn.Module):
    """Decoder of the paper: linear layers, LayerNorm and LeakyReLU(0.2) between them.

    Parameters
    ----------
    n_inputs : sequence of r ints
        Selected features of each run.
    hidden_layer_sizes : sequence of int
        Empty for a linear decoder.
    n_outputs : int
    generators : sequence of r CPU torch.Generator
    """

    recordable = True  # by :func:`ipcae_sklearn._graphs.replayed`

    def __init__(self, n_inputs, hidden_layer_sizes, n_outputs, generators):
        super().__init__()
        self.n_inputs = list(n_inputs)
        layers = []
        sizes = self.n_inputs
        for width in hidden_layer_sizes:
            layers += [_Linear(sizes, width, generators)]
            layers += [_LayerNorm(len(sizes), width), _LeakyReLU(0.2)]
            sizes = [width] * len(sizes)
        layers.append(_Linear(sizes, n_outputs, generators))
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """(r, b, k) -> (r, b, m)."""
        return self.layers(z)

    def with_pullback(self, z: Tensor) -> tuple[Tensor, Pullback]:
        """(r, b, k) -> (r, b, m), and its pullback."""
        h, pullback_to_input = self.layers[0].with_pullback(z)
        value, pullback_to_h = self.leave_with_pullback(h)

        def pullback(grad, to_input=True):
            grad, others = pullback_to_h(grad)
            grad, own = pullback_to_input(grad, to_input)
            return grad, own + others

        return value, pullback

    def enter(self, z: Tensor) -> Tensor:
        """What the first linear layer makes of the inputs: (r, b, k) -> (r, b, h)."""
        return self.layers[0](z)

    def leave_with_pullback(self, h: Tensor) -> tuple[Tensor, Pullback]:
        """The rest of :meth:`with_pullback`: (r, b, h) -> (r, b, m)."""
        pullbacks = []
        for layer in islice(self.layers, 1, None):
            h, pullback_of_layer = layer.with_pullback(h)
            pullbacks.append(pullback_of_layer)

        def pullback(grad, to_own=True):
            parts = []
            for pullback_of_layer in reversed(pullbacks):
                grad, own = pullback_of_layer(grad, to_own=to_own)
                parts = own + parts
            return grad, parts

        return h, pullback

    def run_state(self, i: int) -> dict[str, Tensor]:
        """Copy of the state of run i, without the padding of its inputs."""
        state = {name: t[i].detach().clone() for name, t in self.state_dict().items()}
        state["layers.0.weight"] = state["layers.0.weight"][:, : self.n_inputs[i]]
        return state

    def load_run_state(self, i: int, state: dict[str, Tensor]) -> None:
        """Put back a copy made by :meth:`run_state`; of more inputs, the first."""
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"expected other layers than {sorted(state)}")
        n = self.n_inputs[i]
        for name, t in self.state_dict().items():
            if name == "layers.0.weight":
                _copy(t[i, :, :n], state[name][:, :n])
            else:
                _copy(t[i], state[name])

    def repeated(self, times: int) -> MLPDecoder:
        """A decoder with all runs of this one, several times."""
        other = copy.deepcopy(self)
        other.n_inputs = self.n_inputs * times
        for module in other.modules():
            for name, t in list(module.named_parameters(recurse=False)):
                repeats = (times,) + (1,) * (t.dim() - 1)
                setattr(module, name, nn.Parameter(t.detach().repeat(repeats)))
        return other

    def keep_inputs(self, inputs: Sequence[Tensor]) -> None:
        """Go on with some inputs of each run, given by number."""
        first = self.layers[0]
        first.weight = _kept(first.weight, inputs, dim=1)
        self.n_inputs = [len(kept) for kept in inputs]


class CustomDecoder(nn.Module):
    """Any modules, one for each run, called one after the other.

    Parameters
    ----------
    factory : callable
        ``factory(n_inputs, n_outputs)`` returns an ``nn.Module`` that maps (b, k) to
        (b, m).
    n_inputs : sequence of r ints
    n_outputs : int
    """

    recordable = False  # a user's module may do more than operations on tensors

    def __init__(self, factory: Callable[[int, int], nn.Module], n_inputs, n_outputs):
        super().__init__()
        self.factory = factory
        self.n_inputs = list(n_inputs)
        self.n_outputs = n_outputs
        modules = [factory(k, n_outputs) for k in self.n_inputs]
        for module in modules:
            if not isinstance(module, nn.Module):
                raise TypeError(
                    "decoder must return a torch.nn.Module, got "
                    f"{type(module).__name__}."
                )
        _check_unshared(modules)
        self.runs = nn.ModuleList(modules)
        for p in self.runs.parameters():
            if nn.parameter.is_lazy(p):
                raise TypeError("decoder must return a module without lazy layers.")
            # An optimizer goes through memory without gaps or repetitions.
            if p.stride() != torch.empty_like(p).stride():
                p.data = p.data.clone(memory_format=torch.contiguous_format)
        self.runs.float()

    def forward(self, z: Tensor) -> Tensor:
        """(r, b, k) -> (r, b, m)."""
        outputs = []
        for i, (module, k) in enumerate(zip(self.runs, self.n_inputs, strict=True)):
            own = z[i, :, :k].clone()  # its first layer may work in place
            try:
                outputs.append(module(own))
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise ValueError(
                    f"decoder must return a module that maps {tuple(own.shape)} to "
                    f"{(len(own), self.n_outputs)}: it is called with the numbers of "
                    f"inputs and outputs, {k} and {self.n_outputs}. Torch says: {error}"
                ) from error
        expected = (z.shape[1], self.n_outputs)
        for output, k in zip(outputs, self.n_inputs, strict=True):
            shape = tuple(getattr(output, "shape", ()))
            if shape != expected:
                raise ValueError(
                    f"decoder must map {(z.shape[1], k)} to {expected}, got an output "
                    f"of type {type(output).__name__} and shape {shape}."
                )
        return torch.stack(outputs)

    def with_pullback(self, z: Tensor) -> tuple[Tensor, Pullback]:
        """(r, b, k) -> (r, b, m), and its pullback."""
        value, recorded = by_autograd(self, [z], trainable(self))

        def pullback(grad, to_input=True):
            grad, *own = recorded(grad)
            return grad, own

        return value, pullback

    def enter(self, z: Tensor) -> Tensor:
        """All of :meth:`forward`: which layer is the first, is not known."""
        return self(z)

    def leave_with_pullback(self, h: Tensor) -> tuple[Tensor, Pullback]:
        """Nothing is left to do."""
        return h, lambda grad, to_own=True: (grad, [])

    def repeated(self, times: int) -> CustomDecoder:
        """A decoder with all runs of this one, several times."""
        other = CustomDecoder(self.factory, self.n_inputs * times, self.n_outputs)
        _check_unshared([self, other])
        for i in range(len(other.n_inputs)):
            other.load_run_state(i, self.run_state(i % len(self.n_inputs)))
        return other

    def run_state(self, i: int) -> dict[str, Tensor]:
        """Copy of the state of run i."""
        state = self.runs[i].state_dict()
        return {name: t.detach().clone() for name, t in state.items()}

    def load_run_state(self, i: int, state: dict[str, Tensor]) -> None:
        """Put back a copy made by :meth:`run_state`."""
        self.runs[i].load_state_dict(state)


def _check_unshared(modules: Iterable[nn.Module]) -> None:
    """Raise an error if several of a user's modules learn one parameter."""
    parameters = [id(p) for module in modules for p in trainable(module)]
    if len(set(parameters)) < len(parameters):
        raise ValueError(
            "decoder must return a new module with parameters of its own each time "
            "that it is called: several are trained side by side."
        )


def make_decoder(factory, n_inputs, hidden_layer_sizes, n_outputs, generators):
    """The user's decoder, or the paper's where ``factory`` is None."""
    if factory is not None:
        return CustomDecoder(factory, n_inputs, n_outputs)
    return MLPDecoder(n_inputs, hidden_layer_sizes, n_outputs, generators)


class DirectLogits(nn.Module):
    """Logits that are the parameter themselves: the concrete autoencoder of 2019.

    Parameters
    ----------
    k : sequence of r ints
    n_features : int
    generators : sequence of r CPU torch.Generator
    start : sequence of r (int array of shape (k,) or None)
        Columns at which the rows begin, with ``start_logit`` ahead of the others;
        None for the almost flat rows of the original: uniform values normalised to
        sum 1.
    """

    def __init__(self, k, n_features, generators, *, start, start_logit):
        super().__init__()
        self.log_alpha = _stack(
            [
                self._initial(k_i, n_features, g, columns, start_logit)
                for k_i, g, columns in zip(k, generators, start, strict=True)
            ]
        )

    @staticmethod
    def _initial(k, p, generator, columns, start_logit):
        uniform = torch.rand(k, p, generator=generator, dtype=torch.float32)
        flat = uniform / uniform.sum(-1, keepdim=True)
        if columns is None:
            return flat
        flat[torch.arange(k), torch.as_tensor(columns)] += start_logit
        return flat

    def forward(self) -> Tensor:
        """(r, k, p)."""
        return self.log_alpha

    def with_pullback(self, out=None, rows=None) -> tuple[Tensor, Pullback]:
        """(r, k, p), or (r, m, p) of some rows (r, m) of each run; their pullback."""
        frozen = not self.log_alpha.requires_grad
        value = _rows_of(self().detach(), rows)

        def pullback(grad):
            return None, [] if frozen else [_in_their_rows(grad, rows, self.log_alpha)]

        return value, pullback

    def keep_rows(self, rows: Sequence[Tensor]) -> None:
        """Go on with some rows of each run, given by number."""
        self.log_alpha = _kept(self.log_alpha, rows)


class IndirectLogits(nn.Module):
    """Logits computed from an embedding: ``log α = g(Ψ)``, the IP-CAE of 2024.

    Parameters
    ----------
    k : sequence of r ints
    n_features : int
    generators : sequence of r CPU torch.Generator
    embedding_dim : int
        Dimension d of the embedding Ψ (k, d).
    embedding_init : {"normal", "identity"}
    map : {"shared", "per_row", "full", "diagonal", "scalar"}
        Form of g: one linear map for all rows (the method), one for each row, one
        from all rows to all rows, or an elementwise or a scalar factor (d = p).
    bias : bool
    hidden_layer_sizes : sequence of int
        Widths of layers (linear, LayerNorm, ReLU) in front of the shared map.
    start : sequence of r (int array of shape (k,) or None)
        Columns at which the rows begin: row i of Ψ starts along the map's own vector
        of column ``start[i]``, as far out as gives that column ``start_logit``.
        Needs the shared map without hidden layers.
    """

    def __init__(
        self,
        k,
        n_features,
        generators,
        *,
        embedding_dim,
        embedding_init="normal",
        map="shared",
        bias=True,
        hidden_layer_sizes=(),
        start,
        start_logit,
    ):
        super().__init__()
        self.map = map
        d = embedding_dim
        embeddings = [
            torch.eye(d, dtype=torch.float32)[:k_i]
            if embedding_init == "identity"
            else torch.randn(k_i, d, generator=g, dtype=torch.float32)
            for k_i, g in zip(k, generators, strict=True)
        ]
        self.hidden = self._hidden(d, hidden_layer_sizes, generators)
        width = hidden_layer_sizes[-1] if hidden_layer_sizes else d
        weights, biases = zip(
            *(
                self._map_parameters(k_i, width, n_features, g)
                for k_i, g in zip(k, generators, strict=True)
            ),
            strict=True,
        )
        self.weight = _stack(weights)
        self.bias = _stack(biases) if bias else None
        for psi, W, columns in zip(embeddings, weights, start, strict=True):
            if columns is not None:
                own = W[torch.as_tensor(columns)]
                psi.copy_(start_logit * own / own.square().sum(-1, keepdim=True))
        self.embedding = _stack(embeddings)

    @staticmethod
    def _hidden(d, hidden_layer_sizes, generators):
        layers = []
        sizes = [d] * len(generators)
        for width in hidden_layer_sizes:
            layers += [_Linear(sizes, width, generators)]
            layers += [_LayerNorm(len(sizes), width), nn.ReLU()]
            sizes = [width] * len(sizes)
        return nn.Sequential(*layers)

    def _map_parameters(self, k, d, p, generator):
        weight_shape, bias_shape = {
            "shared": ((p, d), (1, p)),
            "per_row": ((k, p, d), (k, p)),
            "full": ((k, p, k, d), (k, p)),
            "diagonal": ((1, p), (1, p)),
            "scalar": ((1, 1), (1, p)),
        }[self.map]
        if self.map in ("diagonal", "scalar"):  # standard normal, as published
            weight = torch.randn(weight_shape, generator=generator, dtype=torch.float32)
            return weight, torch.randn(
                bias_shape, generator=generator, dtype=torch.float32
            )
        fan_in = k * d if self.map == "full" else d
        weight = _uniform(*weight_shape, fan_in=fan_in, generator=generator)
        return weight, _uniform(*bias_shape, fan_in=fan_in, generator=generator)

    def forward(self) -> Tensor:
        """(r, k, p)."""
        psi = self.hidden(self.embedding)
        if self.map == "shared":
            return _linear(psi, self.weight, self.bias)
        if self.map == "per_row":
            logits = torch.einsum("rkd,rkpd->rkp", psi, self.weight)
        elif self.map == "full":
            logits = torch.einsum("rid,rkpid->rkp", psi, self.weight)
        else:
            logits = psi * self.weight
        return logits if self.bias is None else logits + self.bias

    def with_pullback(self, out=None, rows=None) -> tuple[Tensor, Pullback]:
        """(r, k, p), or (r, m, p) of some rows (r, m) of each run; their pullback.

        They are in ``out``, if that is given and they are the result of a product.
        """
        frozen = not all(p.requires_grad for p in self.parameters())
        if self.map != "shared" or len(self.hidden) or frozen:
            every, recorded = by_autograd(self, parameters=trainable(self))
            return _rows_of(every, rows), lambda grad: (
                None,
                list(recorded(_in_their_rows(grad, rows, every))),
            )
        embedding = _rows_of(self.embedding, rows)

        def pullback(grad):
            of_bias = [] if self.bias is None else [grad.sum(1, keepdim=True)]
            of_weight = torch.bmm(grad.mT, embedding)
            of_embedding = torch.bmm(grad, self.weight)
            of_embedding = _in_their_rows(of_embedding, rows, self.embedding)
            return None, [of_weight, *of_bias, of_embedding]

        return _linear(embedding, self.weight, self.bias, out), pullback

    def keep_rows(self, rows: Sequence[Tensor]) -> None:
        """Go on with some rows of each run, given by number.

        Not for the full map, in which every row depends on all others.
        """
        names = ["embedding", "weight", "bias"] if self.map == "per_row" else []
        for name in names or ["embedding"]:
            if getattr(self, name) is not None:
                setattr(self, name, _kept(getattr(self, name), rows))


class ConcreteAutoencoder(nn.Module):
    """Selector logits and decoder of r runs.

    Parameters
    ----------
    logits : nn.Module
        Returns (r, k, p) when called.
    decoder : MLPDecoder or CustomDecoder
    k : sequence of r ints
        Features that each run selects; the rows beyond them are spare.
    candidates : int Tensor of shape (r, p), optional
        Numbers of the columns that each run's logits are of. By default 0, 1, ...
    """

    row_mask: Tensor
    candidates: Tensor | None

    def __init__(self, logits, decoder, k: Sequence[int], candidates=None):
        super().__init__()
        self.logits = logits
        self.decoder = decoder
        self.k = list(k)
        self.register_buffer("candidates", candidates, persistent=False)
        # States of the decoders as they were made, for others to begin with.
        self.initial_decoders = [decoder.run_state(i) for i in range(len(self.k))]
        self.register_buffer("row_mask", self._row_mask(), persistent=False)

    def n_searched(self, n_features: int) -> int:
        """How many of n_features columns each run searches."""
        return n_features if self.candidates is None else self.candidates.shape[1]

    def decoders_alone(self, times: int) -> ConcreteAutoencoder:
        """The decoders of all runs, several times, without a selector."""
        decoder = self.decoder.repeated(times)
        other = ConcreteAutoencoder(nn.Identity(), decoder, self.k * times)
        other.initial_decoders = self.initial_decoders * times
        return other.to(self.row_mask.device).train()

    def forget(self, runs: Iterable[int]) -> None:
        """Give the decoders of some runs the states that they were made with."""
        for i in runs:
            self.decoder.load_run_state(i, self.initial_decoders[i])

    def _row_mask(self) -> Tensor:
        """True for the rows that a run has, False for spare ones: (r, k)."""
        rows = torch.arange(max(self.k))
        return rows < torch.tensor(self.k).unsqueeze(-1)

    def keep_rows(self, rows: Sequence[Tensor]) -> None:
        """Go on with some rows of each run, given by number."""
        self.logits.keep_rows(rows)
        self.decoder.keep_inputs(rows)
        self.k = [len(kept) for kept in rows]
        self.row_mask = self._row_mask().to(self.row_mask.device)

    def forward(self, selected: Tensor) -> Tensor:
        """Decode selected features: (r, b, k) -> (r, b, m)."""
        return self.decoder(self._own(selected))

    def with_pullback(self, selected: Tensor) -> tuple[Tensor, Pullback]:
        """Decode selected features: (r, b, k) -> (r, b, m), and its pullback.

        The decoder's weights of spare rows are and stay zero, and so is their gradient.
        """
        return self.decoder.with_pullback(self._own(selected))

    def enter(self, selected: Tensor) -> Tensor:
        """What the decoder's first layer makes of them: (r, b, k) -> (r, b, h)."""
        return self.decoder.enter(self._own(selected))

    def _own(self, selected: Tensor) -> Tensor:
        """Without the columns of spare rows."""
        if len(set(self.k)) > 1:
            return selected * self.row_mask.unsqueeze(1)
        return selected

    def run_state(self, i: int) -> dict[str, dict[str, Tensor]]:
        """Copy of the state of run i: tensors of the selector and of the decoder."""
        logits = self.logits.state_dict().items()
        return {
            "selector": {name: t[i].detach().clone() for name, t in logits},
            "decoder": self.decoder.run_state(i),
        }

    def load_run_state(self, i: int, state: dict[str, dict[str, Tensor]]) -> None:
        """Put back a copy made by :meth:`run_state`."""
        for name, t in self.logits.state_dict().items():
            _copy(t[i], state["selector"][name])
        self.decoder.load_run_state(i, state["decoder"])
