"""The local search: what decoders ask for, and what is taken in the end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from ipcae_sklearn import _advice, _local_search
from ipcae_sklearn._advice import (
    GreedyAdviser,
    _alike_directions,
    _curve_scores,
    _explained,
    _scores,
)
from ipcae_sklearn._data import Rows
from ipcae_sklearn._decoding import (
    NonFiniteLossError,
    Setup,
    TrainingOptions,
    TuningLength,
    folds_of,
    importances,
    padded,
    tuning_lengths,
    unmet_needs,
)
from ipcae_sklearn._functional import cross_entropy, squared_error
from ipcae_sklearn._local_search import (
    _Best,
    _is_clearly_worse,
    _take_better,
    _Trials,
    local_search,
    local_search_in_folds,
    stand_ins,
    without_copies,
)
from ipcae_sklearn._modules import (
    ConcreteAutoencoder,
    CustomDecoder,
    DirectLogits,
    MLPDecoder,
)
from ipcae_sklearn._noise import InputMasks
from ipcae_sklearn._problem import Runs
from ipcae_sklearn._targets import encode_labels, encode_values

CPU = torch.device("cpu")
OPTIONS = TrainingOptions(
    max_iter=10,
    tuning_iter=20,
    n_folds=0,
    n_trials=12,
    dropout=(),
    learning_rate=0.01,
    jitter=0.0,
    jitter_learning_rate=0.01,
    selector_learning_rate=0.05,
    weight_decay=0.0,
    temperature=(10.0, 0.01),
    temperature_schedule="exponential",
    noise="pool",
    gradient="relaxed",
    n_decoder_steps=1,
    n_gradient_samples=4,
    diversity=0.0,
    early_stopping=False,
    n_iter_no_change=10,
    tol=1e-4,
)


class Case:
    """Some rows with a target, and all that a local search of them needs."""

    def __init__(self, X, y, k, n_runs=1, *, classes=False, held_out=100, weights=None):
        n, p = X.shape
        self.k = k if isinstance(k, list) else [k] * n_runs
        n_runs = len(self.k)
        self.target = encode_labels(y) if classes else encode_values(y)
        self.loss = cross_entropy if classes else squared_error
        self.seeds = list(range(n_runs))
        rows = Rows(X, np.arange(p), X.mean(0), X.std(0), CPU)
        index = np.arange(n)
        runs = Runs(self.k, self.seeds, 5, index[held_out:], index[:held_out], weights)
        self.batches = runs.batches(rows, self.target, 50)
        few = held_out == 0
        self.adviser = GreedyAdviser(rows, self.target, runs, by_target=few)
        generators = [torch.Generator().manual_seed(s) for s in self.seeds]
        logits = DirectLogits(
            self.k, p, generators, start=[None] * n_runs, start_logit=5.0
        )
        decoder = MLPDecoder(self.k, (16,), self.target.n_outputs, generators)
        self.model = ConcreteAutoencoder(logits, decoder, self.k)

    def search(self, *columns, options=OPTIONS):
        columns = [np.array(own) for own in columns]
        setup = self.setup(options)
        return local_search(setup, columns, self.adviser, self.seeds)

    def setup(self, options=OPTIONS):
        return Setup(self.model, self.batches, self.loss, options)


def product(n=800, p=12, seed=0):
    """A target of which column 1 tells in company with column 0 only."""
    X = np.random.default_rng(seed).normal(size=(n, p))
    return X, X[:, 0] * X[:, 1] + X[:, 0] + X[:, 2]


def test_a_partner_is_found_that_tells_nothing_by_itself():
    X, y = product()
    assert set(Case(X, y, 3).search([0, 5, 7])[0]) == {0, 1, 2}


def curves(n, p=30, seed=0):
    """A target that no column tells of in a line."""
    X = np.random.default_rng(seed).uniform(-2, 2, size=(n, p))
    return X, np.cos(3 * X[:, 0]) + np.abs(X[:, 1]) + X[:, 2] ** 2 / 2


def test_columns_are_found_of_which_the_target_is_a_curve():
    X, y = curves(2000)
    assert set(Case(X, y, 3).search([5, 6, 7])[0]) == {0, 1, 2}


def test_a_kind_of_columns_that_does_not_help_is_asked_for_no_more():
    X, y = product()
    case = Case(X, y, 3)
    case.adviser = Watched(case.adviser)
    case.search([0, 1, 2])
    # Half of three, one, is given up at first, and less of them next; but for a curve.
    asked = [by for _, by, *_ in case.adviser.asked]
    assert asked == ["company", "kinship", "curve", "curve"]


def test_classes_are_found_too():
    X, y = product()
    (found,) = Case(X, y > 0, 3, classes=True).search([0, 5, 7])
    assert {0, 1} <= set(found)


def test_the_best_columns_stay():
    X, y = product()
    (found,) = Case(X, y, 3).search([2, 1, 0])
    assert found.tolist() == [2, 1, 0]


def test_without_trials_nothing_changes():
    X, y = product()
    options = replace(OPTIONS, n_trials=0)
    (found,) = Case(X, y, 3).search([0, 5, 7], options=options)
    assert found.tolist() == [0, 5, 7]


def test_the_decoder_is_not_asked_without_a_target():
    X, _ = product()
    case = Case(X, X[:, 0], 3)
    case.target = replace(case.target, tensor=None)
    adviser = GreedyAdviser(case.adviser._data, case.target, case.adviser.runs)
    assert not adviser.asks_decoder


def test_a_run_is_the_same_alone_and_in_company():
    X, y = product()
    (alone,) = Case(X, y, 3).search([0, 5, 7])
    together = Case(X, y, 3, n_runs=3).search([0, 5, 7], [3, 4, 5], [8, 9, 2])
    assert_array_equal(together[0], alone)
    assert all(len(set(own)) == 3 for own in together)


def met(case, columns, k, needs, by):
    """What columns a run gets by itself for some needs (n, h)."""
    needs = torch.from_numpy(needs).unsqueeze(0)
    return case.adviser.meet([columns], [k], needs, by=by)[0]


class Watched:
    """An adviser that answers as another one does, and what it was asked."""

    def __init__(self, adviser, *alternatives):
        self.adviser = adviser
        self.found = [np.array(own) for own in alternatives]
        self.asked, self.answers = [], []
        self.asks_decoder = adviser.asks_decoder
        self.rows = adviser.rows

    def alternatives(self, columns):
        return [[own] * len(columns) for own in self.found]

    def meet(self, columns, k, needs, *, by):
        answers = self.adviser.meet(columns, k, needs, by=by)
        every = zip(columns, k, needs, answers, strict=True)
        for i, (own, n, wanted, answer) in enumerate(every):
            if len(own) < n:
                self.asked.append((i, by, own.tolist(), wanted))
                self.answers.append((i, by, answer.tolist()))
        return answers


def watched_search(*columns, n_runs=1, alternatives=(), **options):
    X, y = product(p=30)
    case = Case(X, y, len(columns[0]), n_runs)
    case.adviser = Watched(case.adviser, *alternatives)
    found = case.search(*columns, options=replace(OPTIONS, **options))
    return case.adviser, found


def test_proposals_are_the_same_alone_and_in_company():
    start = list(range(10, 18))
    alone, (found,) = watched_search(start)
    together, others = watched_search(start, list(range(20, 28)), n_runs=2)
    own = [answer for answer in together.answers if answer[0] == 0]
    assert own == alone.answers
    assert others[0].tolist() == found.tolist()


@pytest.mark.parametrize("n_trials", [5, 8, 20])
def test_a_run_tries_as_many_sets_alone_and_in_company(n_trials):
    starts = [0, 1, 2], [10, 11, 12]  # the first of which is soon done
    both, found = watched_search(*starts, n_runs=2, n_trials=n_trials)
    first, (alone,) = watched_search(starts[0], n_trials=n_trials)
    assert found[0].tolist() == alone.tolist()
    assert [own for own in both.answers if own[0] == 0] == first.answers


@pytest.mark.parametrize("n_trials", [1, 2, 3, 4, 7])
def test_no_more_sets_are_tried_than_n_trials(n_trials):
    adviser, _ = watched_search(
        [10, 11, 12], alternatives=[[13, 14, 15]], n_trials=n_trials
    )
    assert len(adviser.asked) == n_trials - 1


@pytest.mark.parametrize("k", [1, 3])
def test_alternatives_that_fail_do_not_keep_the_decoder_from_being_asked(k):
    adviser, _ = watched_search(
        list(range(10, 10 + k)), alternatives=[list(range(15, 15 + k))] * 2
    )
    n_kept = [len(columns) for _, _, columns, _ in adviser.asked[:2]]
    assert n_kept == [k - max(1, k // 2)] * 2


def test_columns_that_stay_keep_their_places():
    start = np.arange(10, 18)
    adviser, (found,) = watched_search(start, n_trials=3)
    assert [by for _, by, *_ in adviser.asked] == ["company", "kinship", "curve"]
    stay = [j for j in found if j in set(start)]
    assert stay
    for j in stay:
        assert np.flatnonzero(found == j) == np.flatnonzero(start == j)


def test_stand_ins_are_asked_for_with_most_inputs_hidden(monkeypatch):
    def first_needs():
        return [needs for *_, needs in watched_search([0, 10, 11])[0].asked[:2]]

    hidden = first_needs()
    monkeypatch.setattr(_local_search, "_RATES", (0.2, 0.2, 0.2))
    less_hidden = first_needs()
    assert_allclose(hidden[0], less_hidden[0])
    assert not np.allclose(hidden[1], less_hidden[1])


def test_masks_are_not_the_noise():
    masks = InputMasks([1000], [0.5], [3], CPU)()[0, 0] > 0
    noise = torch.rand(1000, generator=torch.Generator().manual_seed(3)) >= 0.5
    assert 0.4 < (masks == noise).float().mean() < 0.6


def test_a_trial_that_diverges_ends_the_search():
    X, y = product()
    options = replace(OPTIONS, learning_rate=1e30)
    (found,) = Case(X, y, 3).search([0, 5, 7], options=options)
    assert found.tolist() == [0, 5, 7]


def test_rows_that_a_run_may_not_see_do_not_count():
    X, y = product()
    y[400:] = 5 * X[400:, 9]
    weights = np.ones((1, 800))
    weights[:, 400:] = 0
    weights /= weights[:, 100:].mean()
    case = Case(X, y, 3, weights=weights)
    assert case.adviser.rows()[0].max() < 400
    assert set(case.search([0, 5, 9])[0]) == {0, 1, 2}


FOLDS = replace(OPTIONS, n_folds=5, tuning_iter=50)


def in_folds(case, *columns, options=FOLDS, **own):
    """What a local search by folds finds; linear swaps are the alternatives."""
    case.adviser.n_swap_passes = 3
    columns = [np.array(own) for own in columns]
    setup = case.setup(options)
    return local_search_in_folds(setup, columns, case.adviser, **own)


def few_rows(y_of, n_runs=1):
    X = np.random.default_rng(0).normal(size=(200, 10))
    return Case(X, y_of(*X.T[:3]), 2, n_runs, held_out=0)


def linear(a, b, c):
    return a + c


def test_few_rows_are_judged_in_folds():
    case, tried = few_rows(linear), []
    (found,), length = in_folds(case, [5, 7], on_trial=lambda *own: tried.append(own))
    assert set(found) == {0, 2}
    setup = case.setup(FOLDS)
    folds, n_folds = folds_of(setup)
    own, start = case.adviser.in_folds(n_folds, folds), np.array([5, 7])
    sets = [[start] * n_folds, *own.alternatives([start] * n_folds)]
    tables = [padded(columns, case.model, n_folds) for columns in sets]
    expected = tuning_lengths(setup, folds, n_folds, tables)
    best = min(expected, key=lambda length: length.loss)
    assert_array_equal(length.n_epochs, best.n_epochs)
    assert_allclose(length.losses, best.losses)
    ((n_tried, loss),) = tried  # all side by side
    assert n_tried == 1  # the penalties change nothing
    assert_allclose(loss, best.loss)


@pytest.mark.parametrize(("room", "expected"), [(0, [1, 1, 1, 1]), (3, [3, 1])])
def test_sets_are_judged_side_by_side_as_far_as_there_is_room(
    monkeypatch, room, expected
):
    case, asked, tried = few_rows(linear, 2), [], []
    together = in_folds(case, [5, 7], [2, 0])[1]
    n_parameters = sum(p.numel() for p in case.model.decoder.parameters())
    values = room * 5 * n_parameters + 1
    monkeypatch.setattr(_local_search, "_VALUES_OF_DECODERS", values)
    real = _local_search.tuning_lengths

    def counted(setup, folds, n_folds, tables):
        asked.append(len(tables))
        return real(setup, folds, n_folds, tables)

    monkeypatch.setattr(_local_search, "tuning_lengths", counted)
    case.adviser.penalties = (0.0, 1.0, 10.0)
    monkeypatch.setattr(_local_search, "_worth_trying", all_of_them)
    length = in_folds(case, [5, 7], [2, 0], on_trial=lambda *own: tried.append(own))[1]
    assert asked == expected
    assert [n for n, _ in tried] == (np.cumsum(expected) - 1).tolist()
    assert_array_equal(length.n_epochs, together.n_epochs)
    assert_allclose(length.losses, together.losses, rtol=1e-4)


def test_a_set_is_judged_the_same_in_company():
    case = few_rows(linear, 2)
    setup = case.setup(FOLDS)
    folds, n_folds = folds_of(setup)
    sets = [[[5, 7], [2, 0]], [[0, 2], [1, 3]], [[8, 9], [5, 4]]]
    tables = [torch.tensor(columns).repeat(n_folds, 1) for columns in sets]
    together = tuning_lengths(setup, folds, n_folds, tables)
    for table, length in zip(tables, together, strict=True):
        (alone,) = tuning_lengths(setup, folds, n_folds, [table])
        assert_array_equal(length.n_epochs, alone.n_epochs)
        assert_allclose(length.losses, alone.losses, rtol=1e-4)


def test_sets_that_do_not_fit_are_judged_one_by_one(monkeypatch):
    asked, real = [], _local_search.tuning_lengths

    def small(setup, folds, n_folds, tables):
        asked.append(len(tables))
        if len(tables) > 1:
            raise torch.cuda.OutOfMemoryError
        return real(setup, folds, n_folds, tables)

    monkeypatch.setattr(_local_search, "tuning_lengths", small)
    (found,), _ = in_folds(few_rows(linear), [5, 7])
    assert set(found) == {0, 2} and asked == [2, 1, 1]


def all_of_them(columns, others, others_in_folds, margins):
    return list(zip(others, others_in_folds, margins, strict=True))


def test_what_regression_cannot_see_is_not_swapped_away_in_folds():
    (found,), length = in_folds(few_rows(lambda a, b, c: a * b), [0, 1])
    assert found.tolist() == [0, 1]
    assert length.loss < 0.9


def test_each_run_has_its_own_columns_in_folds():
    found, length = in_folds(few_rows(linear, 2), [5, 7], [2, 0])
    assert set(found[0]) == {0, 2}
    assert found[1].tolist() == [2, 0]
    (alone,), length_alone = in_folds(few_rows(linear), [5, 7])
    assert alone.tolist() == found[0].tolist()
    assert_allclose(length.losses[:, 0], length_alone.losses[:, 0], rtol=1e-4)
    # Nothing has been tried for the second run.
    case = few_rows(linear, 2)
    setup = case.setup(FOLDS)
    folds, n_folds = folds_of(setup)
    table = padded([np.array([2, 0])] * 10, case.model, n_folds)
    (expected,) = tuning_lengths(setup, folds, n_folds, [table])
    assert_allclose(length.losses[:, 1], expected.losses[:, 1], rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_tried_in_a_fold_comes_from_the_rows_trained_on_there(weighted):
    X = np.random.default_rng(0).normal(size=(60, 30))
    weights = np.random.default_rng(1).uniform(0.5, 1.5, (2, 60)) if weighted else None
    case = Case(X, X[:, 0] + X[:, 1], 3, 2, held_out=0, weights=weights)
    case.adviser.n_swap_passes = 3
    case.adviser.begin_greedily()
    folds, n_folds = case.batches.in_folds(5, 2)
    adviser = case.adviser.in_folds(n_folds, folds)
    columns = np.array([7, 8, 9])
    found = list(zip(*adviser.alternatives([columns] * 10), strict=True))
    for i, own in enumerate(found):
        trained = np.flatnonzero(folds.training.weights[i].numpy())
        assert len(trained) == 48
        of_run = np.ones(60) if weights is None else weights[i % 2]
        part = np.zeros((1, 60))
        part[0, trained] = of_run[trained]
        alone = Case(X, X[:, 0] + X[:, 1], 3, held_out=0, weights=part)
        alone.adviser.n_swap_passes = 3
        # Scaled by all rows, as the columns are, whatever the fold.
        assert set(own[1]) == set(alone.adviser.alternatives([columns])[0][0])
        assert set(own[0]) == set(alone.adviser.complete([[]], [3], 3)[0])
    assert len({tuple(sorted(own[1])) for own in found}) > 1  # folds differ


def test_noise_that_fits_all_rows_is_not_taken(monkeypatch):
    """Of many columns of noise some explain what is left of few rows."""
    monkeypatch.setattr(_advice, "_PENALTIES_OF_A_TARGET", (0.0,))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 400))
    y = X[:, 0] + X[:, 1] + X[:, 0] * X[:, 1] + 0.5 * rng.normal(size=60)
    X[:, 2] = X[:, 0] + 0.3 * rng.normal(size=60)
    case = Case(X, y, 4, held_out=0)
    case.adviser.n_swap_passes = 3
    start = np.array([0, 1, 2, 3])
    assert set(case.adviser.alternatives([start])[0][0]) != set(start)
    (found,), _ = in_folds(case, start)
    assert found.tolist() == start.tolist()


@pytest.mark.parametrize("room", [0, 1, 2, 4, 5])
def test_folds_are_searched_side_by_side_as_far_as_there_is_room(monkeypatch, room):
    case, n_runs, asked = few_rows(linear, 2), 2, []
    values = room * n_runs * 2 * 10 + 1
    monkeypatch.setattr(_local_search, "_VALUES_SIDE_BY_SIDE", values)

    def search_anew(times, batches, adviser):
        assert len(batches.training.weights) == len(adviser.runs.k) == times * n_runs
        asked.append(adviser.runs.weights)
        return [np.array([2, 0])] * (times * n_runs)

    in_folds(case, [5, 7], [0, 1], search_anew=search_anew)
    expected = {0: [1] * 5, 1: [1] * 5, 2: [2, 2, 1], 4: [4, 1], 5: [5]}
    assert [len(weights) // n_runs for weights in asked] == expected[room]
    folds, _ = folds_of(case.setup(FOLDS))
    assert_array_equal(np.concatenate(asked), folds.train_weights(200))


def test_folds_that_do_not_fit_are_searched_one_after_the_other():
    asked = []

    def search_anew(times, batches, adviser):
        asked.append(times)
        if times > 1:
            raise torch.cuda.OutOfMemoryError
        return [np.array([2, 0])]

    in_folds(few_rows(linear), [5, 7], search_anew=search_anew)
    assert asked == [5, 2, 1, 1, 1, 1, 1]

    def no_room(times, batches, adviser):
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(torch.cuda.OutOfMemoryError):
        in_folds(few_rows(linear), [5, 7], search_anew=no_room)


def test_a_search_in_folds_that_finds_better_columns_is_kept():
    case = few_rows(lambda a, b, c: a * b)
    anew = [np.array([0, 1])] * 5
    (found,), length = in_folds(case, [0, 1], search_anew=lambda *own: anew)
    assert found.tolist() == [0, 1]
    assert length.loss < 0.9


def test_columns_that_are_swapped_for_themselves_are_no_trial():
    tried = []
    in_folds(few_rows(linear), [2, 0], on_trial=lambda *own: tried.append(own))
    assert [n for n, _ in tried] == [0]


def test_a_set_is_not_tried_twice(known_losses):
    tried, losses = [], np.ones(5)
    known_losses[0, 1], known_losses[2, 3] = losses, losses + 0.5
    known_losses[4, 5] = losses - 0.5
    adviser = FixedAdviser([2, 3], [1, 0], [3, 2], [4, 5])
    own = {"on_trial": lambda *own: tried.append(own)}
    assert with_fixed(adviser, **own)[0] == [4, 5]
    assert [n for n, _ in tried] == [2]


def test_curves_have_to_be_clearly_better(known_losses):
    losses = np.array([1.0, 1.1, 0.9, 1.0, 1.0])
    less = np.array([0.3, 0.1, 0.2, 0.2, 0.2])  # .2 in the mean, of an error of .03
    own = {"search_anew": lambda times, batches, adviser: [np.array([0, 1])] * 5}
    for more, expected in ((0.15, [0, 1]), (0.1, [2, 3])):
        known_losses[0, 1], known_losses[2, 3] = losses, losses - less + more
        curves = FixedAdviser([2, 3], with_curves=True)
        assert with_fixed(curves, **own)[0] == with_fixed(curves)[0] == expected
        assert with_fixed(FixedAdviser([2, 3]), **own)[0] == [2, 3]


def test_a_search_in_folds_that_diverges_leaves_the_doubt(known_losses):
    losses = np.array([1.0, 1.1, 0.9, 1.0, 1.0])
    known_losses[0, 1] = losses
    known_losses[2, 3] = losses + np.array([0.2, -0.1, 0, 0, 0])

    def diverges(times, batches, adviser):
        raise NonFiniteLossError

    one = FixedAdviser([2, 3])
    assert with_fixed(one, search_anew=diverges) == with_fixed(one)


@pytest.fixture
def known_losses(monkeypatch):
    """Losses in five folds by the columns in the first of them, to be filled in."""
    losses = {}

    def known(setup, folds, n_folds, tables):
        own = [losses[tuple(columns[0].tolist())] for columns in tables]
        return [TuningLength(np.array([7]), column[:, None]) for column in own]

    monkeypatch.setattr(_local_search, "tuning_lengths", known)
    return losses


class FixedAdviser:
    def __init__(self, *tried, with_curves=False):
        self.tried, self.with_curves = tried, with_curves

    def of(self, runs):
        return self

    def alternatives(self, columns):
        return [[np.array(own)] * len(columns) for own in self.tried]

    def in_folds(self, n_folds, folds):
        return self


def with_fixed(adviser, **own):
    """What is found from the columns 0 and 1."""
    setup, columns = few_rows(linear).setup(FOLDS), [np.array([0, 1])]
    (found,), length = local_search_in_folds(setup, columns, adviser, **own)
    return found.tolist(), length.loss


def test_of_several_trials_the_best_is_taken(known_losses):
    """Not the last that is not clearly worse than the one before."""
    first = np.array([1.0, 1.1, 0.9, 1.0, 1.0])
    little, more = np.array([[0.06, -0.04, 0, 0, 0], [0.2, -0.1, 0, 0, 0]])
    known_losses[0, 1] = first
    known_losses[2, 3], known_losses[4, 5] = first + little, first + more
    two = FixedAdviser([2, 3], [4, 5])
    assert with_fixed(two)[0] == [2, 3]
    known_losses[2, 3], known_losses[4, 5] = first + more, first + little
    assert with_fixed(two)[0] == [4, 5]
    known_losses[2, 3], known_losses[4, 5] = first + 0.5, first + 0.4
    assert with_fixed(two) == ([0, 1], first.mean())


def test_columns_are_judged_by_what_the_search_finds_in_each_fold(known_losses):
    """Those found with the target of all rows look better than they are."""
    own, asked = np.array([1.0, 1.1, 0.9, 1.0, 1.0]), []
    known_losses[0, 1], known_losses[8, 9] = own, own + 0.5  # what folds find
    known_losses[2, 3] = own + 0.4

    def search_anew(times, batches, adviser):
        asked.append(batches)
        assert adviser is one
        return [np.array([8, 9])] * times

    one = FixedAdviser([2, 3])
    assert with_fixed(one)[0] == [0, 1]
    found, loss = with_fixed(one, search_anew=search_anew)
    assert found == [2, 3] and loss == pytest.approx((own + 0.4).mean())
    assert not asked[0].has_validation
    assert (np.count_nonzero(asked[0].training.weights, axis=1) == 160).all()
    # Not clearly worse is not enough, where nothing is flattered.
    known_losses[2, 3] = own + np.array([0.8, 0.3, 0.6, 0.4, 0.5])
    found, loss = with_fixed(one, search_anew=search_anew)
    assert found == [0, 1] and loss == pytest.approx((own + 0.5).mean())


def test_nothing_is_tried_in_folds_without_trials_or_folds():
    options = replace(FOLDS, n_trials=0)
    (found,), length = in_folds(few_rows(linear), [5, 7], options=options)
    assert found.tolist() == [5, 7] and length is not None
    options = replace(FOLDS, n_folds=0)
    (found,), length = in_folds(few_rows(linear), [5, 7], options=options)
    assert found.tolist() == [5, 7] and length is None


def test_a_trial_in_folds_that_diverges_is_not_taken(monkeypatch):
    case, real = few_rows(linear), _local_search.tuning_lengths

    def diverging(setup, folds, n_folds, tables):
        if any(columns.tolist() != [[5, 7]] * n_folds for columns in tables):
            raise NonFiniteLossError
        return real(setup, folds, n_folds, tables)

    monkeypatch.setattr(_local_search, "tuning_lengths", diverging)
    (found,), length = in_folds(case, [5, 7])
    assert found.tolist() == [5, 7]
    assert np.isfinite(length.loss).all()
    with pytest.raises(NonFiniteLossError):  # nothing else tells how long to tune
        in_folds(case, [7, 5])


def test_clearly_worse_is_by_more_than_a_standard_error():
    reference = np.zeros((4, 3))
    more = np.array([[1, 1, -1], [3, -1, -1], [1, 1.5, -1], [3, -1, -1]])
    # Means 2, 1/8 and -1, standard errors 0.58, 0.66 and 0.
    assert _is_clearly_worse(more, reference).tolist() == [True, False, False]


def explained(X, Y, weights=None):
    """What of each column of one run is explained, (p,)."""
    weights = np.ones(len(X)) if weights is None else weights
    own = (torch.from_numpy(A).unsqueeze(0) for A in (X, Y, weights))
    return _explained(*own)[0].numpy()


@pytest.mark.parametrize("weighted", [False, True])
def test_columns_have_to_be_explained_as_far_as_the_target_explains_them(weighted):
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(150, 2)) * [1, 100]
    noise = rng.normal(size=(150, 6)) * np.geomspace(1, 1e3, 6)
    X = Y @ rng.normal(size=(2, 6)) + noise
    weights = rng.uniform(0.1, 2, 150) if weighted else None
    root = np.sqrt(np.ones(150) if weights is None else weights)[:, None]
    centred = [root * (A - np.average(A, 0, weights=weights)) for A in (Y, X)]
    left = centred[1] - centred[0] @ np.linalg.lstsq(*centred, rcond=None)[0]
    expected = 1 - np.sum(left**2, 0) / np.sum(centred[1] ** 2, 0)
    twice = np.hstack([Y, Y[:, :1] + 5])  # whose last column adds nothing
    for Z in (Y, twice):
        assert_allclose(explained(X, Z, weights), expected, rtol=1e-6)


def test_constant_columns_are_not_explained_and_explain_nothing():
    X, Y = np.random.default_rng(0).normal(size=(2, 50, 3))
    X[:, 1] = Y[:, 1] = 1
    shares = explained(X, Y)
    assert shares[1] == 0 and (shares[[0, 2]] > 0).all()
    assert_array_equal(explained(X, np.ones((50, 2))), np.ones(3))


def test_columns_that_tell_nothing_need_not_be_explained():
    # Eight near copies of a factor that tells nothing of the target, four of one that
    # does, and the other half of the target.
    rng = np.random.default_rng(0)
    useless, useful, other = rng.normal(size=(3, 300, 1))
    X = np.hstack([*[useless] * 8, *[useful] * 4, other])
    X = X + 0.3 * rng.normal(size=X.shape)
    case = Case(X, (useful + other)[:, 0], 3, held_out=0)
    (found,) = case.adviser.complete([[]], [3])
    assert {*found} - {12} < set(range(8, 12))


def test_few_rows_try_the_columns_of_which_the_target_is_a_curve():
    X, y = curves(200)
    case = Case(X, y, 3, held_out=0)
    case.adviser.with_curves = True
    assert set(case.adviser.alternatives([[5, 6, 7]])[-1][0]) == {0, 1, 2}
    (found,), _ = in_folds(case, [5, 6, 7])
    assert set(found) == {0, 1, 2}


@pytest.mark.parametrize("start", [[], [1]])
def test_a_column_is_worth_the_same_wherever_the_mean_of_all_rows_is(start):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 4)), rng.normal(size=400)
    X[:200, 3] = 1  # the runs see these rows
    X[:200, 0] += y[:200]
    shifted = X.copy()
    shifted[200:, 0] += 100
    shifted[200:, 3] += 1e4
    found = []
    for own in (X, shifted):
        weights = np.ones((1, 400))
        weights[:, 200:] = 0
        case = Case(own, y, 2, held_out=0, weights=weights)
        seen = case.adviser._look(range(1), 10**6)
        target = torch.from_numpy(y)[torch.from_numpy(seen.index)].unsqueeze(-1)
        score = _scores(case.adviser._data, seen, target, start)
        found.append(score.numpy()[0])
    assert_allclose(*found, rtol=1e-3)
    assert found[0][3] == found[1][3] == 0
    x, left = X[:200, 0], y[:200] - y[:200].mean()
    if not start:
        expected = (left @ x) ** 2 / np.sum((x - x.mean()) ** 2)
        assert found[0][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("values", [2, 5, 400])
def test_a_curve_is_worth_what_the_means_of_parts_explain(weighted, values):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(400, 5)), rng.normal(size=(400, 3))
    X = np.floor(values * expit(X))
    weights = np.ones((2, 400))
    if weighted:
        weights = rng.uniform(0.5, 2, size=(2, 400))
    weights[1, :150] = 0
    case = Case(X, Y[:, 0], 2, 2, held_out=0, weights=weights)
    seen = case.adviser._look(range(2), 10**6)
    own = torch.from_numpy(Y)[torch.from_numpy(seen.index)]
    scores = _curve_scores(case.adviser._data, seen, own)
    for score, w in zip(scores, weights, strict=True):
        x, y, w = X[w > 0], Y[w > 0], w[w > 0]
        y = y - np.average(y, axis=0, weights=w)
        for j in range(5):
            order = np.argsort(x[:, j])
            share = np.cumsum(w[order]) / w.sum()
            edges = [x[order, j][share > i / 8 + 1e-9][0] for i in range(1, 8)]
            part = (x[:, [j]] >= edges).sum(1)
            sums = [
                (w[part == b] @ y[part == b], w[part == b].sum()) for b in set(part)
            ]
            expected = sum(total @ total / weight for total, weight in sums)
            assert score[j] == pytest.approx(expected, rel=1e-4)


def test_few_rows_get_stand_ins_for_shared_columns():
    # Column 4 is a noisy copy of column 0, which alone tells of the target.
    X = np.random.default_rng(0).normal(size=(300, 8))
    X[:, 4] = X[:, 0] + 0.5 * X[:, 4]
    case = Case(X, X[:, 0], 2, held_out=0)
    case.adviser = Watched(case.adviser)
    (found,) = stand_ins(
        case.setup(),
        [np.array([0, 0])],
        [np.array([True, False])],
        case.adviser,
        case.seeds,
    )
    assert found.tolist() == [0, 4]
    assert [by for _, by, *_ in case.adviser.asked] == ["share"]


def test_stand_ins_take_the_places_of_what_they_replace():
    X, y = product()
    case = Case(X, y, 4, held_out=0)
    setup, rest = case.setup(), (case.adviser, case.seeds)
    columns, kept = np.array([8, 8, 2, 9]), np.array([False, True, True, True])
    (found,) = stand_ins(setup, [columns], [kept], *rest)
    assert found[1:].tolist() == [8, 2, 9]
    assert found[0] in {0, 1}
    (same,) = stand_ins(setup, [columns], [np.ones(4, dtype=bool)], *rest)
    assert same is columns


def test_in_company_a_copy_is_worth_nothing():
    X, y = product()
    X[:, 4] = X[:, 0]
    case = Case(X, y, 3)
    needs = np.column_stack([3 * X[:, 0], X[:, 6]])[case.adviser.rows()[0]]
    start = np.array([0])
    assert met(case, start, 2, needs, by="company").tolist() == [0, 6]
    assert met(case, start, 2, needs, by="share").tolist() == [0, 4]


def test_what_the_needs_have_least_of_counts_by_kinship_alone():
    X, y = product()
    case = Case(X, y, 3)
    noise = 2 * np.random.default_rng(1).normal(size=len(X))
    needs = np.column_stack([3 * (X[:, 4] + noise), X[:, 6]])[case.adviser.rows()[0]]
    start = np.array([0])
    assert met(case, start, 3, needs, by="share").tolist() == [0, 4, 6]
    assert met(case, start, 3, needs, by="kinship").tolist() == [0, 6, 4]


def kin(weights=None, n=700, p=12, n_needs=3):
    """A case, its needs, and the R² of a regression of each column on them."""
    random = np.random.default_rng(3)
    needs = random.normal(size=(n, n_needs)) * np.geomspace(1, 30, n_needs)
    noise = random.normal(size=(n, p)) * np.linspace(0.2, 3, p)
    X = needs @ random.normal(size=(n_needs, p)) / 10 + noise
    root = np.sqrt(np.ones(n) if weights is None else weights)[:, None]
    known = np.column_stack([np.ones(n), needs])
    left = X - known @ np.linalg.lstsq(root * known, root * X, rcond=None)[0]
    R2 = 1 - np.sum((root * left) ** 2, 0) / np.sum((root * X) ** 2, 0)
    matrix = None if weights is None else weights[None]
    case = Case(X * np.geomspace(1, 1e3, p), X[:, 0], 3, held_out=0, weights=matrix)
    return case, needs, R2


@pytest.mark.parametrize("weighted", [False, True])
def test_by_kinship_a_column_is_worth_what_a_regression_on_the_needs_explains(weighted):
    weights = np.where(np.arange(700) % 10, 0.5, 5.5) if weighted else None
    case, needs, R2 = kin(weights)
    start = np.argsort(-R2)[-1:]
    found = met(case, start, len(R2), needs, by="kinship")
    assert found[1:].tolist() == np.argsort(-R2)[:-1].tolist()


@pytest.mark.parametrize("weighted", [False, True])
def test_directions_that_count_alike_are_orthonormal(weighted):
    random = np.random.default_rng(0)
    needs = random.normal(size=(200, 60)) * np.geomspace(1, 20, 60)
    weights = random.uniform(0, 9, size=200) if weighted else np.ones(200)
    own = (torch.from_numpy(A).unsqueeze(0) for A in (needs, weights))
    found = _alike_directions(*own, [8])[0].numpy()
    assert_allclose(found.T @ (weights[:, None] * found), np.eye(8), atol=1e-10)
    # They are the longest of all, by another decomposition.
    longest = np.linalg.svd(np.sqrt(weights)[:, None] * needs, full_matrices=False)
    inner = (np.sqrt(weights)[:, None] * found).T @ longest[0][:, :8]
    assert_allclose(np.abs(inner), np.eye(8)[::-1], atol=1e-8)


def test_few_rows_are_not_explained_by_many_directions():
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 200))
    case = Case(X, X[:, 0], 3, held_out=12)
    telling = 5 * (X[:, 4] + random.normal(size=60))
    needs = np.column_stack([telling, random.normal(size=(60, 40))])
    needs = needs[case.adviser.rows()[0]]
    found = met(case, np.array([7]), 2, needs, by="kinship")
    assert found.tolist() == [7, 4]


def test_rounding_is_no_direction():
    X, y = product()
    case = Case(X, y, 3)
    needs = np.column_stack([X[:, 1], X[:, 1] + 1e-6 * X[:, 9]])[case.adviser.rows()[0]]
    found = met(case, np.array([7]), 3, needs, by="kinship").tolist()
    assert found[:2] == [7, 1]
    assert found[2] != 9


@pytest.mark.parametrize("by", ["company", "share", "kinship"])
def test_needs_that_say_the_same_or_nothing(by):
    X, y = product()
    case = Case(X, y, 3)
    start = np.array([7])
    once = X[case.adviser.rows()[0]][:, [1]]
    found = met(case, start, 2, once * np.ones(5), by=by)
    assert found.tolist() == [7, 1]
    for k in (2, 5):
        found = met(case, start, k, 0 * once, by=by)
        assert found[0] == 7
        assert len(set(found)) == k


@pytest.mark.parametrize("few", [False, True])
def test_regressions_of_several_runs_at_once_are_those_of_each(few):
    """As on a GPU; runs may see rows of their own, and some see fewer."""
    X, y = product(n=300, p=20)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, (3, 300))
    weights[0, :50] = weights[1, 50:100] = weights[2, 100:170] = 0
    case = Case(X, y, 4, 3, held_out=0 if few else 60, weights=weights)
    rows = case.adviser.rows()
    needs = torch.from_numpy(
        X[rows][..., 3:11] + 3 * X[rows][..., :1] * X[rows][..., 1:9]
    )
    start = [np.array(own) for own in ([0, 5], [7], [1, 2, 3, 4])]
    nothing = [np.array([], dtype=int)] * 3

    def answers():
        yield case.adviser.complete(start, [4, 4, 4])
        yield case.adviser.complete(nothing, [4, 3, 2], 3)
        for by in ("company", "share", "kinship"):
            yield case.adviser.meet(start, [4, 4, 4], needs, by=by)

    one_by_one = list(answers())
    case.adviser.together = True
    case.adviser._grams.clear()
    for together, alone in zip(answers(), one_by_one, strict=True):
        assert [own.tolist() for own in together] == [own.tolist() for own in alone]
    assert len({tuple(own) for own in one_by_one[1]}) > 1


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gram_matrices_are_kept_once_for_equal_rows(together, weighted):
    X, y = product(n=300, p=20)
    weights = None
    if weighted:
        weights = np.random.default_rng(0).uniform(0.5, 1.5, (2, 300))
        weights[0, :100] = 0
        weights = weights[[0, 1, 0, 1, 0]]
    case = Case(X, y, 4, 5, held_out=0, weights=weights)
    case.adviser.together = together
    start = [np.array([i]) for i in range(5)]
    first = case.adviser.complete(start, [4] * 5, 2)
    some = case.adviser.complete(start, [1, 4, 4, 1, 4])
    assert len(case.adviser._grams) == (2 if weighted else 1)
    case.adviser._grams.clear()
    assert [own.tolist() for own in case.adviser.complete(start, [4] * 5, 2)] == [
        own.tolist() for own in first
    ]
    assert [len(own) for own in some] == [1, 4, 4, 1, 4]


def test_how_many_columns_are_tried_may_depend_on_k(monkeypatch):
    # All of them for the larger k, whose products are of no use for the smaller.
    monkeypatch.setattr(_advice, "_GREEDY_VALUES", 1600)
    X, y = product(n=300, p=40)
    case = Case(X, y, 3)
    (large,) = case.adviser.complete([[]], [30])
    (small,) = case.adviser.complete([[]], [3])
    assert len(set(large)) == 30
    assert len(set(small)) == 3
    monkeypatch.setattr(_advice, "_GREEDY_VALUES", 1521)
    assert len(set(case.adviser.complete([[]], [3])[0])) == 3


def test_many_columns_are_screened_for_each_run_by_itself(monkeypatch):
    monkeypatch.setattr(_advice, "_GREEDY_VALUES", 400)
    X, y = product(n=300, p=60)
    case = Case(X, y, 3, 2)
    alone = case.adviser.complete([np.array([5]), np.array([59])], [3, 3])
    case.adviser.together = True
    together = case.adviser.complete([np.array([5]), np.array([59])], [3, 3])
    assert [own.tolist() for own in together] == [own.tolist() for own in alone]
    assert [own[0] for own in alone] == [5, 59]
    assert {0, 2} <= {*alone[0]}


def test_needs_are_the_gradient_for_the_weights_of_a_new_input():
    X, y = product(60, 5)
    case = Case(X, y, 2, held_out=0)
    columns = padded([np.array([0, 3])], case.model)
    index = np.arange(60)
    masks = [torch.tensor([[[1.0, 0.5]]])]
    needs = unmet_needs(case.setup().of(columns), index[np.newaxis], masks)
    ((batch, target, _),) = case.batches.rows(index)
    selected = (batch[:, columns] * masks[0]).transpose(0, 1)
    weight = torch.zeros(16, requires_grad=True)  # of a new input, column 4
    first = case.model.decoder.layers[0](selected) + batch[:, 4, None] * weight
    loss = squared_error(case.model.decoder.layers[1:](first), target).sum()
    (expected,) = torch.autograd.grad(loss, weight)
    assert_allclose(batch[:, 4] @ needs[0], expected, rtol=1e-4, atol=1e-5)


def test_columns_missed_least_are_given_up():
    missed = np.array([0.3, -0.1, 0.2, 0.1])
    own = _Best(np.array([8, 6, 4, 2]), missed=missed, n_given_up=[2, 0.5, 1], n_left=1)
    assert own.kinds() == [0]
    assert own.kept(0).tolist() == [True, False, True, False]
    assert own.kept(1).all()  # helps no more
    assert own.kept(2).all()  # no set is left to try


def test_each_run_measures_its_best_columns_by_the_decoder_trained_on_them():
    X, y = product()
    case = Case(X, y, [3, 5])
    good, poor = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]
    sets = [[np.array(good[:3]), np.array(poor)], [np.array(poor[:3]), np.array(good)]]
    judged = _Trials(case.setup(), case.seeds).judge(*sets)
    best = [_Best(own, n_left=n) for own, n in zip(sets[0], [0, 1], strict=True)]
    _take_better(best, judged)
    assert [own.columns.tolist() for own in best] == [good[:3], good]
    _Trials(case.setup(), case.seeds).measure(best)
    decoders = case.model.decoders_alone(2)
    for i in range(4):
        decoders.decoder.load_run_state(i, judged[2].run_state(i))
    setup = Setup(decoders, case.batches.repeated(2), case.loss, OPTIONS)
    every = importances(setup, [own for columns in sets for own in columns])
    assert_allclose(best[0].missed, every[0, :3], rtol=1e-5)
    assert_allclose(best[1].missed, every[3], rtol=1e-5)
    assert np.abs(every[1]).max() < 0.1 * every[0].max()


def test_no_decoder_is_kept_that_will_not_be_asked():
    X, y = product()
    case = Case(X, y, 3)
    columns = [np.arange(3)]
    best = [_Best(own) for own in columns]
    _take_better(best, _Trials(case.setup(), case.seeds).judge(columns))
    assert best[0].loss < np.inf
    assert not best[0].state


@pytest.mark.parametrize("custom", [False, True])
def test_a_repeated_decoder_gives_the_same_outputs(custom):
    generators = [torch.Generator().manual_seed(s) for s in range(2)]
    if custom:
        decoder = CustomDecoder(lambda n, m: torch.nn.Linear(n, m), [3, 3], 2)
    else:
        decoder = MLPDecoder([3, 3], (4,), 2, generators)
    Z = torch.randn(2, 5, 3, generator=generators[0])
    repeated = decoder.repeated(2)
    expected = decoder(Z)
    torch.testing.assert_close(repeated(torch.cat([Z, Z])), expected.repeat(2, 1, 1))
    with torch.no_grad():
        for parameter in repeated.parameters():
            parameter.zero_()
    torch.testing.assert_close(decoder(Z), expected)
    assert repeated.n_inputs == [3] * 4


@pytest.mark.parametrize("custom", [False, True])
def test_entering_and_leaving_a_decoder_is_going_through_it(custom):
    generators = [torch.Generator().manual_seed(0)]
    decoder = MLPDecoder([3], (4,), 2, generators)
    if custom:
        decoder = CustomDecoder(lambda n, m: torch.nn.Linear(n, m), [3], 2)
    Z = torch.randn(1, 5, 3, generator=generators[0])
    output, _ = decoder.leave_with_pullback(decoder.enter(Z))
    torch.testing.assert_close(output, decoder(Z))


# Copies of columns


def adviser_of(X, weights=None):
    rows = Rows(X, np.arange(X.shape[1]), X.mean(0), np.ones(X.shape[1]), CPU)
    n_runs = 1 if weights is None else len(weights)
    nothing = np.arange(0)
    runs = Runs(
        [3] * n_runs, list(range(n_runs)), 0, np.arange(len(X)), nothing, weights
    )
    return GreedyAdviser(rows, encode_values(X[:, 0]), runs)


def with_copies(n=200):
    """Columns 0 to 4 of their own; copies of 0 and 1, their sum, near copies of 0, and
    constants.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5))
    own, other = X[:, 0], X[:, 1]
    near, nearer = (own + share * rng.normal(size=n) for share in (0.05, 0.005))
    made = [own, 3 - 2 * other, own + other, near, nearer]
    made += [np.full(n, 0.3), np.full(n, 1 / 3)]
    return np.column_stack([X, *made]).astype(np.float32)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([0, 1, 2], [True, True, True]),
        ([0, 5, 2], [True, False, True]),
        ([5, 2, 0], [True, True, False]),
        ([1, 6, 0], [True, False, True]),  # in another unit
        ([0, 1, 7], [True, True, True]),  # a sum is no copy
        ([0, 8, 1], [True, True, True]),
        ([0, 9, 1], [True, False, True]),
        ([9, 0, 1, 6, 5], [True, False, True, False, False]),
        ([10, 11, 0], [True, True, True]),  # constants
    ],
)
def test_which_columns_are_copies(columns, expected):
    X = with_copies()
    (found,) = adviser_of(X).distinct([np.array(columns)])
    assert found.tolist() == expected
    assert_array_equal(adviser_of(X * 1e4).distinct([np.array(columns)])[0], found)


def test_copies_in_the_rows_of_a_run_count_alone():
    X = with_copies()
    X[:100, 3] = X[:100, 2]
    weights = np.ones((2, 200))
    weights[0, 100:] = 0
    columns = np.array([2, 3, 4])
    adviser = adviser_of(X, weights)
    first, second = adviser.distinct([columns, columns])
    assert first.tolist() == [True, False, True] and second.all()
    one, other = without_copies([columns, columns], adviser)
    assert one[[0, 2]].tolist() == [2, 4] and one[1] not in (2, 3, 4)
    assert_array_equal(other, columns)


def test_copies_stay_where_all_others_are_copies_too():
    X = with_copies()[:, [0, 1, 5, 6]]
    (found,) = without_copies([np.array([0, 1, 2])], adviser_of(X))
    assert found.tolist() == [0, 1, 2]
