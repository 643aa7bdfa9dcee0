"""The parameters that all selectors have: checked, and what "auto" stands for."""

from __future__ import annotations

from numbers import Integral

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ipcae_sklearn import _parameters
from ipcae_sklearn._decoding import TrainingOptions
from ipcae_sklearn._modules import trainable
from ipcae_sklearn._warnings import warn

# Steps of the decoder in the search and in the tuning that "auto" asks for, in whole
# epochs, and the fewest epochs. Both need steps, however many rows there are.
_SEARCH_STEPS, _SEARCH_EPOCHS = 2000, 5
_TUNING_STEPS, _TUNING_EPOCHS = 2000, 30
# Steps of the decoder for each of the selector, at most, and bytes of the rows that
# these take in together.
_DECODER_STEPS, _DECODER_STEPS_BYTES = 4, 2**26
# Of noise on the inputs of a classifier in the tuning, in units of the scaled columns.
_JITTER = 0.6
# With a target, nodes of the selector that search, at least.
_FEWEST_NODES = 16
# With fewer rows than this, holding some out costs more than it tells.
_ROWS_TO_VALIDATE = 500
# Then so many parts of them take turns, to judge columns and how long to tune.
_FOLDS = 5
# Of more rows this share is held out; where a target judges columns by them, as many
# rows at least, but no more than the larger share.
_HELD_OUT, _ROWS_HELD_OUT, _MOST_HELD_OUT = 0.15, 500, 0.3
# In the end the decoder learns from those held out, too, unless there are more rows:
# there it takes longer, and rows are no longer what the decoder is short of.
_MOST_ROWS_TO_REFIT = 100_000
# With a target and fewer rows than this to train on, regression explains other columns
# only as far as the target explains them.
_ROWS_TO_EXPLAIN_ALL = 2000
# Passes of the linear swaps that the local search tries first; and perturbations from
# which they begin anew where they are all that it tries.
_SWAP_PASSES, _PERTURBATIONS = 3, 20
# Where there are too few rows to hold some out, selected features are hidden from the
# decoder at random: at most this share, and so that this many are left in the mean.
_MOST_DROPOUT, _LEFT_IN = 0.8, 10
# With a target the search chooses among so many columns that tell most of it by
# themselves: where rows are too few to hold some out and, of more columns than the
# last, up to as many rows as above. They do not show what others tell in company.
_CANDIDATES_OF_FEW, _CANDIDATES, _COLUMNS_TO_SCREEN = 1000, 8192, 32_768


class SelectorSettings(BaseEstimator):
    """What a user sets, and all that follows from it and from the shape of the data.

    A ``task`` is never "auto" in the methods that resolve others; ``n_train`` are the
    rows that a run trains on, the mean or the most of several runs.
    """

    # What learning_rate_selector="auto" stands for; subclasses set it.
    _selector_rate: float

    def __init__(
        self,
        k=10,
        *,
        task="auto",
        init="random",
        hidden_layer_sizes=(200,),
        decoder=None,
        temperature=(10.0, 0.01),
        temperature_schedule="exponential",
        noise="pool",
        gradient="relaxed",
        n_gradient_samples=10,
        diversity=0.0,
        max_iter="auto",
        n_surplus="auto",
        n_candidates="auto",
        feature_dropout="auto",
        n_trials=14,
        tuning_iter="auto",
        batch_size="auto",
        n_decoder_steps="auto",
        learning_rate_init="auto",
        learning_rate_selector="auto",
        weight_decay=0.0,
        validation_fraction="auto",
        early_stopping=False,
        n_iter_no_change=10,
        tol=1e-4,
        class_weight=None,
        standardize="auto",
        n_init=1,
        device="auto",
        warm_start=False,
        random_state=None,
        verbose=False,
    ):
        self.k = k
        self.task = task
        self.init = init
        self.hidden_layer_sizes = hidden_layer_sizes
        self.decoder = decoder
        self.temperature = temperature
        self.temperature_schedule = temperature_schedule
        self.noise = noise
        self.gradient = gradient
        self.n_gradient_samples = n_gradient_samples
        self.diversity = diversity
        self.max_iter = max_iter
        self.n_surplus = n_surplus
        self.n_candidates = n_candidates
        self.feature_dropout = feature_dropout
        self.n_trials = n_trials
        self.tuning_iter = tuning_iter
        self.batch_size = batch_size
        self.n_decoder_steps = n_decoder_steps
        self.learning_rate_init = learning_rate_init
        self.learning_rate_selector = learning_rate_selector
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.class_weight = class_weight
        self.standardize = standardize
        self.n_init = n_init
        self.device = device
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self) -> None:
        check_option, check_number = _parameters.check_option, _parameters.check_number
        check_option("task", self.task, _parameters.TASKS)
        check_option("init", self.init, ("random", "greedy"))
        check_option(
            "temperature_schedule",
            self.temperature_schedule,
            ("exponential", "linear"),
        )
        check_option("noise", self.noise, ("pool", "batch", "sample"))
        gradients = ("relaxed", "straight_through", "gumbel_rao")
        check_option("gradient", self.gradient, gradients)
        if self.gradient == "gumbel_rao" and self.noise == "sample":
            raise ValueError(
                "gradient='gumbel_rao' draws noise for all rows together, which "
                "noise='sample' does not."
            )
        options = ("auto", "l4", True, False)
        check_option("standardize", self.standardize, options)
        for name in ("early_stopping", "warm_start"):
            check_option(name, getattr(self, name), (True, False))
        if not isinstance(self.verbose, (Integral, np.bool_)):
            raise TypeError(f"verbose must be True or False, got {self.verbose!r}.")
        for name in ("n_gradient_samples", "n_iter_no_change", "n_init"):
            check_number(name, getattr(self, name), low=1, integer=True)
        check_number("n_trials", self.n_trials, low=0, integer=True)
        for name in ("diversity", "weight_decay", "tol"):
            check_number(name, getattr(self, name), low=0)
        check_number_or = _parameters.check_number_or
        for name in ("learning_rate_init", "learning_rate_selector"):
            rate = getattr(self, name)
            check_number_or(name, rate, ("auto",), low=0, open_low=True)
        check_number_or("n_surplus", self.n_surplus, ("auto",), low=0, integer=True)
        if self.n_surplus not in ("auto", 0) and self._no_surplus():
            name = self._no_surplus()
            raise ValueError(
                f"n_surplus={self.n_surplus!r} does not go with "
                f"{name}={getattr(self, name)!r}; use n_surplus='auto' or 0."
            )
        own, named = self.n_candidates, ("auto", "all")
        check_number_or("n_candidates", own, named, low=1, integer=True)
        if own not in named and self.warm_start:
            raise ValueError(
                f"n_candidates={own!r} does not go with warm_start=True: the next fit "
                "would have others. Use 'auto' or 'all'."
            )
        check_number_or("max_iter", self.max_iter, ("auto",), low=1, integer=True)
        check_number_or("tuning_iter", self.tuning_iter, ("auto",), low=0, integer=True)
        for name in ("batch_size", "n_decoder_steps"):
            own = getattr(self, name)
            check_number_or(name, own, ("auto",), low=1, integer=True)
        fraction = self.validation_fraction
        check_number_or(
            "feature_dropout", self.feature_dropout, ("auto",), low=0, high=0.99
        )
        check_number_or("validation_fraction", fraction, ("auto",), low=0, high=1)
        a_module = isinstance(self.decoder, torch.nn.Module)
        if a_module or (self.decoder is not None and not callable(self.decoder)):
            raise TypeError(
                "decoder must be None or a callable (n_inputs, n_outputs) -> "
                f"torch.nn.Module, got {self.decoder!r}."
            )
        _parameters.check_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        _parameters.check_temperature(self.temperature)

    def _integer_seed(self) -> int:
        """``random_state`` if it is an integer, else one drawn from it."""
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return check_random_state(self.random_state).randint(2**31 - 1)

    def _resolve_k(self, n_features: int) -> int:
        k = _parameters.resolve_k(self.k, n_features)
        if k > n_features:
            warn(
                f"k={self.k} is greater than n_features={n_features}. All the "
                "features will be kept.",
            )
        return min(k, n_features)

    def _resolve_fraction(self, task, n: int) -> float:
        if self.validation_fraction != "auto":
            return self.validation_fraction
        if n < _ROWS_TO_VALIDATE:
            return 0.0
        if task == "reconstruction":
            return _HELD_OUT
        return min(max(_HELD_OUT, _ROWS_HELD_OUT / n), _MOST_HELD_OUT)

    def _resolve_standardize(self, task) -> bool | str:
        if self.standardize == "auto":
            return False if task == "reconstruction" else "l4"
        return self.standardize

    def _training_options(self, n_train: int, task: str) -> TrainingOptions:
        """The parameters as the training loop takes them, but for ``dropout`` and
        ``n_decoder_steps``, which depend on the model.
        """
        steps_per_epoch = -(-n_train // self._resolve_batch_size(n_train))
        max_iter, tuning_iter = self.max_iter, self.tuning_iter
        if max_iter == "auto":
            max_iter = max(_SEARCH_EPOCHS, -(-_SEARCH_STEPS // steps_per_epoch))
        if tuning_iter == "auto":
            tuning_iter = max(_TUNING_EPOCHS, -(-_TUNING_STEPS // steps_per_epoch))
        rate, selector_rate = self.learning_rate_init, self.learning_rate_selector
        jitter_rate = rate
        if rate == "auto":
            rate = 3e-3 if task == "reconstruction" else 1e-3
            jitter_rate = 3e-3
        jitter = _JITTER if task == "classification" and self.decoder is None else 0.0
        if selector_rate == "auto":
            selector_rate = self._selector_rate
        return TrainingOptions(
            max_iter=int(max_iter),
            n_decoder_steps=1,
            tuning_iter=int(tuning_iter),
            n_folds=self._resolve_folds(n_train),
            n_trials=int(self.n_trials),
            dropout=(),
            learning_rate=rate,
            jitter=jitter,
            jitter_learning_rate=jitter_rate,
            selector_learning_rate=selector_rate,
            weight_decay=self.weight_decay,
            temperature=_parameters.check_temperature(self.temperature),
            temperature_schedule=self.temperature_schedule,
            noise=self.noise,
            gradient=self.gradient,
            n_gradient_samples=self.n_gradient_samples,
            diversity=self.diversity,
            early_stopping=self.early_stopping,
            n_iter_no_change=self.n_iter_no_change,
            tol=self.tol,
        )

    def _resolve_folds(self, n_train: int) -> int:
        """Folds by which few rows tell how long to tune; 0 for all of it."""
        # A warm fit goes on with the decoder that it has.
        return _FOLDS if n_train < _ROWS_TO_VALIDATE and not self.warm_start else 0

    def _repeats_search(self, task, holds_out: bool) -> bool:
        """Whether folds, if there are any, repeat the search."""
        judges = self.n_trials and self.tuning_iter and not holds_out
        # Without a target there is less that few rows could tell by chance.
        return bool(judges) and task != "reconstruction"

    def _refits(self, n_train: int, holds_out: bool) -> bool:
        """Whether the decoder is trained anew once held-out rows have judged it."""
        # The next warm fit would be judged by rows that this one has learned from.
        return holds_out and n_train <= _MOST_ROWS_TO_REFIT and not self.warm_start

    def _resolve_dropout(self, n_nodes: int, task: str, holds_out: bool) -> float:
        """Share of the features of n_nodes nodes to hide."""
        if self.feature_dropout != "auto":
            return self.feature_dropout
        # As searching nodes that are dropped later, this is for a tuning to make good.
        if task == "reconstruction" or holds_out or self._no_surplus():
            return 0.0
        return float(np.clip(1 - _LEFT_IN / n_nodes, 0, _MOST_DROPOUT))

    def _resolve_batch_size(self, n_train: int) -> int:
        """About the square root of the rows, so that epochs grow slower than they."""
        if self.batch_size != "auto":
            return min(int(self.batch_size), n_train)
        if n_train <= 64:
            return n_train
        return int(np.clip(2 ** round(np.log2(n_train) / 2), 32, 256))

    def _resolve_decoder_steps(self, decoder, n_train: int, n_features: int) -> int:
        """How many batches a step of the selector takes in, to search n_features."""
        if self.n_decoder_steps != "auto":
            return int(self.n_decoder_steps)
        # As published; and noise of each row's own costs the same in any step.
        if self.tuning_iter == 0 or self.noise == "sample" or not trainable(decoder):
            return 1
        n_bytes = 4 * n_features * self._resolve_batch_size(n_train)
        return int(np.clip(_DECODER_STEPS_BYTES // n_bytes, 1, _DECODER_STEPS))

    def _resolve_advice(self, task: str, n_train: int, holds_out: bool) -> dict:
        """What :class:`~ipcae_sklearn._advice.GreedyAdviser` is to look for."""
        has_target = task != "reconstruction"
        return {
            "n_swap_passes": _SWAP_PASSES,
            "n_perturbations": _PERTURBATIONS if holds_out and not has_target else 0,
            "by_target": has_target and n_train < _ROWS_TO_EXPLAIN_ALL,
            "with_curves": has_target and not holds_out,
        }

    def _n_nodes(self, k: int, n_features: int, task: str) -> int:
        """Nodes that search for k of the columns in use."""
        if self.n_surplus != "auto":
            return min(k + self.n_surplus, n_features)
        if task == "reconstruction" or self._no_surplus():
            return k
        return max(k, min(_FEWEST_NODES, n_features // 2))

    def _learns_directions(self, task: str) -> bool:
        """Whether a reconstruction may learn directions in place of all columns."""
        # The published decoder has the columns for its outputs, as has one that is to
        # be gone on with on other rows; the last layer of a user's is not known.
        return task == "reconstruction" and not self._fixes_decoder()

    def _no_surplus(self) -> str:
        """The parameter that does not go with nodes that are dropped, if any."""
        return self._fixes_decoder()

    def _fixes_decoder(self) -> str:
        """The parameter by which inputs and outputs of the decoder stay, if any."""
        if self.decoder is not None:
            return "decoder"
        if self.warm_start:
            return "warm_start"
        return "tuning_iter" if self.tuning_iter == 0 else ""

    def _resolve_candidates(
        self, n_nodes: int, p: int, task, n_train: int, holds_out: bool
    ) -> int:
        """How many of p columns n_nodes nodes search among."""
        wanted = self.n_candidates
        if wanted == "all":
            return p
        if wanted != "auto":
            if task == "reconstruction":
                raise ValueError(
                    f"n_candidates={wanted} needs a target that tells which; without "
                    "one use 'auto' or 'all'."
                )
            if wanted < min(n_nodes, p):
                raise ValueError(
                    f"n_candidates={wanted} is fewer than the {n_nodes} nodes that "
                    "search for features of their own. Increase it, or lower k or "
                    "n_surplus."
                )
            return min(wanted, p)
        # As hiding features, this is for a tuning and the local search to make good.
        if task == "reconstruction" or self._no_surplus():
            return p
        few = not holds_out and n_train < _ROWS_TO_VALIDATE
        wide = p > _COLUMNS_TO_SCREEN and n_train < _ROWS_TO_EXPLAIN_ALL
        n = _CANDIDATES_OF_FEW if few else _CANDIDATES
        return min(n, p) if (few or wide) and 2 * n_nodes <= n else p

    def _hidden_layer_sizes(self) -> tuple[int, ...]:
        sizes = self.hidden_layer_sizes
        return _parameters.check_sizes("hidden_layer_sizes", sizes)
