import itertools
import time
from typing import ClassVar

import numpy as np
import pytest
from pymoo.core.duplicate import NoDuplicateElimination
from sklearn.model_selection import KFold, cross_val_predict

from netwright.core.budget import Budget
from netwright.core.errors import BadInput, NetwrightError
from netwright.search.linas import LINAS, _at_random, evolution
from netwright.search.linas.evolution import PEERS, evolve, nsga2
from netwright.search.linas.surrogate import Surrogate, candidates, one_hot
from netwright.search.parts.archive import Archive, front, hypervolume

REFERENCE = np.array([1.05, 1.05])


class Bowls:
    """Distance to two opposite corners, each gene with its own weight: additive, so the front is known exactly."""

    genes: ClassVar = dict(zip("abcdef", (5, 5, 5, 5, 4, 4), strict=True))

    def __init__(self):
        self.calls = []

    def measure(self, choice, task):
        self.calls.append(tuple(choice.values()))
        return dict(zip(("near", "far"), self.values(np.array([list(choice.values())]))[0], strict=True))

    @classmethod
    def values(cls, codes):
        x = codes / (np.array(list(cls.genes.values())) - 1)
        w = np.array([1, 2, 3, 1, 2, 1]) / 10
        return np.stack([(w * x**2).sum(1), (w * (1 - x) ** 2).sum(1)], 1)

    @classmethod
    def everything(cls):
        return np.array(list(itertools.product(*(range(n) for n in cls.genes.values()))))


def brute_front(values):
    return [i for i, v in enumerate(values) if not any((w <= v).all() and (w < v).any() for w in values)]


def test_reaches_the_known_front_with_a_hundredth_of_the_measurements():
    exact = hypervolume(Bowls.values(Bowls.everything()), REFERENCE)
    space = Bowls()
    found = LINAS(population=20, measurements=80, evaluations=600)(space, None, Budget())
    assert len(found.log) == len(space.calls) == len(set(space.calls)) == 80
    reached = found.hypervolumes(REFERENCE)
    rng = np.random.default_rng(0)
    random = [
        hypervolume(Bowls.values(Bowls.everything()[rng.permutation(10_000)[:80]]), REFERENCE)
        for _ in range(5)
    ]
    assert reached[-1] > 0.96 * exact
    assert reached[-1] > 1.03 * max(random)
    assert reached[19] < reached[-1]


def test_the_front_holds_measured_values_only():
    found = LINAS(population=10, measurements=40, evaluations=300)(Bowls(), None, Budget())
    values = found.values
    assert sorted(tuple(c.choice.values()) for c in found) == sorted(
        found.log[i].choice for i in brute_front(values)
    )
    for candidate in found:
        exact = Bowls.values(np.array([list(candidate.choice.values())]))[0]
        assert list(candidate.objectives.values()) == pytest.approx(exact)


def test_predictors_are_refitted_on_all_measurements(monkeypatch):
    seen, fit = [], Surrogate.fit
    monkeypatch.setattr(Surrogate, "fit", lambda self, x, y: (seen.append(len(y)), fit(self, x, y))[1])
    found = LINAS(population=10, measurements=30, evaluations=200)(Bowls(), None, Budget())
    rounds = [m.round for m in found.log]
    expected = [rounds.index(r) for r in sorted(set(rounds)) if r]
    assert len(expected) >= 2
    assert seen == [n for n in expected for _ in range(2)]


def test_repeatable():
    run = lambda seed: LINAS(population=8, measurements=24, evaluations=160, seed=seed)(
        Bowls(), None, Budget()
    )
    assert [m.choice for m in run(3).log] == [m.choice for m in run(3).log]
    assert [m.choice for m in run(3).log] != [m.choice for m in run(4).log]


def test_a_small_space_is_measured_once_and_whole():
    class Small:
        genes: ClassVar = {"a": 3, "b": 2}

        def measure(self, choice, task):
            return {"x": choice["a"], "y": -choice["a"] - choice["b"]}

    found = LINAS()(Small(), None, Budget())
    assert len(found.log) == 6
    assert [c.choice for c in found] == [{"a": a, "b": 1} for a in range(3)]


def test_genes_that_are_switched_off_are_masked():
    class Depth:
        """b counts only where a is on."""

        genes: ClassVar = {"a": 2, "b": 12}

        def inactive(self, choice):
            return ["b"] if choice["a"] == 0 else []

        def measure(self, choice, task):
            assert choice["a"] or choice["b"] == 0
            return {"x": choice["a"] * choice["b"], "y": -choice["b"] - choice["a"]}

    found = LINAS(population=6, measurements=100, evaluations=60)(Depth(), None, Budget())
    assert len(found.log) == 13
    assert [m.choice for m in found.log if m.choice[0] == 0] == [(0, -1)]
    assert {"a": 1, "b": 0} in [
        c.choice for c in found
    ]  # no candidate holds a code that a space does not know


def test_an_inactive_gene_looks_like_none_of_its_values():
    """The predictors see no value where a gene is off: not that of an active 0."""

    class Depth:
        genes: ClassVar = {"a": 2, "b": 3}

        def inactive(self, choice):
            return ["b"] if choice["a"] == 0 else []

        def measure(self, choice, task):
            return {"x": choice["a"], "y": 1.0}

    archive = Archive(Depth(), None)
    off, on = archive.canonical((0, 2)), archive.canonical((1, 0))
    assert (off, on) == ((0, -1), (1, 0))
    assert archive.canonical(off) == off
    coded = one_hot(np.array([off, on]), archive.sizes)
    assert coded.tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert archive.named(off) == {"a": 0, "b": 0}
    assert (archive.measure((0, 1), 0) == archive.measure((0, 2), 0)).all()
    assert len(archive.log) == 1


def test_seconds_end_the_search_at_the_next_measurement():
    class Slow(Bowls):
        def measure(self, choice, task):
            time.sleep(0.02)
            return super().measure(choice, task)

    found = LINAS(population=50)(Slow(), None, Budget(seconds=0.2))
    assert 1 <= len(found.log) <= 12


def test_what_a_space_must_not_do():
    class Odd(Bowls):
        def measure(self, choice, task):
            return {"x": float("nan")}

    with pytest.raises(NetwrightError, match="not finite"):
        LINAS()(Odd(), None, Budget())
    empty = Bowls()
    empty.genes = {}
    with pytest.raises(BadInput):
        LINAS()(empty, None, Budget())


def test_surrogate_chooses_by_cross_validation():
    rng = np.random.default_rng(0)
    sizes = np.array([4] * 6)
    codes = rng.integers(0, 4, (120, 6))
    x = one_hot(codes, sizes)
    assert x.shape == (120, 24)
    assert (x.reshape(120, 6, 4).argmax(2) == codes).all()
    additive = 1000.0 + 200 * codes[:, 0] - 70 * codes[:, 3] ** 2
    fitted = Surrogate().fit(x[:80], additive[:80])
    assert np.abs(fitted.predict(x[80:]) / additive[80:] - 1).max() < 0.05
    joint = 3.0 + codes[:, 0] * codes[:, 1] + np.cos(codes[:, 2] * codes[:, 3])
    assert type(Surrogate().fit(x, joint).model_).__name__ == "SVR"
    assert np.abs(Surrogate().fit(x, 1e-7 * additive).predict(x) / (1e-7 * additive) - 1).max() < 0.1


def test_hypervolume_and_front_against_closed_forms():
    steps = np.array([[0.0, 0.75], [0.25, 0.5], [0.5, 0.25], [0.6, 0.6]])
    assert hypervolume(steps, np.array([1.0, 1.0])) == pytest.approx(0.25 + 0.25 * 0.75 + 0.25 * 0.5)
    assert list(front(steps)) == [0, 1, 2]
    rng = np.random.default_rng(1)
    values = rng.integers(0, 6, (60, 3)).astype(float)
    assert set(front(values)) == set(brute_front(values))


def test_evolution_finds_the_front_of_the_function_it_is_given():
    exact = hypervolume(Bowls.values(Bowls.everything()), REFERENCE)
    last = nsga2(
        np.array(list(Bowls.genes.values())),
        2,
        Bowls.values,
        population=40,
        evaluations=2000,
        seed=0,
        mutation=0.2,
    )
    assert last.min() >= 0
    assert (last < np.array(list(Bowls.genes.values()))).all()
    assert len(np.unique(last, axis=0)) == len(last)
    assert hypervolume(Bowls.values(last), REFERENCE) > 0.97 * exact


def test_archive_measures_a_known_choice_for_free():
    space = Bowls()
    archive = Archive(space, None)
    first = archive.measure((0, 1, 2, 3, 1, 0), 0)
    assert (archive.measure((0, 1, 2, 3, 1, 0), 1) == first).all()
    assert len(space.calls) == len(archive.log) == 1


PEER = {
    "ga": "GA", "cma-es": "CMAES", "nsga2": "NSGA2", "age-moea": "AGEMOEA", "u-nsga3": "UNSGA3", "c-taea": "CTAEA",
    "moea/d": "MOEAD",
}  # fmt: skip


@pytest.mark.parametrize("name", [n for names in PEERS.values() for n in names])
def test_every_peer_is_the_algorithm_of_its_name_and_finds_better_choices_than_chance(name, monkeypatch):
    """Of one objective its least value, of two the front."""
    if name == "age-moea":
        pytest.importorskip("numba")
    sizes, seen, ran = np.array(list(Bowls.genes.values())), [], []
    single = name in PEERS[1]

    def evaluate(rows):
        assert rows.dtype == int
        assert (rows >= 0).all()
        assert (rows < sizes).all()
        seen.extend(rows.tolist())
        values = Bowls.values(rows)
        return np.abs(values.sum(1, keepdims=True) - 0.6) if single else values

    original = evolution.minimize
    monkeypatch.setattr(
        evolution, "minimize", lambda p, peer, *a, **k: (ran.append(peer), original(p, peer, *a, **k))
    )
    evolve(name, sizes, 1 if single else 2, evaluate, population=20, evaluations=400, seed=0)
    assert 300 <= len(seen) <= 500
    found = Bowls.values(np.unique(seen, axis=0))  # a repeated choice costs nothing
    everything = Bowls.everything()
    rng = np.random.default_rng(0)
    if single:
        best = lambda values: np.abs(values.sum(1) - 0.6).min()
        assert best(found) <= np.sort(np.abs(Bowls.values(everything).sum(1) - 0.6))[20] + 1e-12
    else:
        chance = [
            hypervolume(Bowls.values(everything[rng.permutation(10_000)[: len(found)]]), REFERENCE)
            for _ in range(5)
        ]
        assert hypervolume(found, REFERENCE) > np.mean(chance)
    (made,) = ran
    assert type(made).__name__ == PEER[name]
    if name == "cma-es":
        assert (made.options["popsize"], made.restarts) == (20, 5)
    else:
        assert made.pop_size == 20
    if name in ("ga", "nsga2", "age-moea"):
        assert not isinstance(made.eliminate_duplicates, NoDuplicateElimination)


def test_evolution_begins_with_what_it_is_given_and_fills_up_at_random():
    sizes, asked = np.array([5, 5, 5, 5, 4, 4]), []
    evaluate = lambda rows: (asked.append(rows), Bowls.values(rows))[1]
    settings = {"population": 6, "evaluations": 6, "seed": 0}
    given = Bowls.everything()[[7, 70, 700, 1700, 2700, 3700, 4700, 5700]]
    nsga2(sizes, 2, evaluate, start=given, **settings)
    assert np.array_equal(asked[0], given[:6])
    asked.clear()
    nsga2(sizes, 2, evaluate, start=given[:2], **settings)
    assert np.array_equal(asked[0][:2], given[:2])
    assert asked[0].shape == (6, 6)
    assert (asked[0] < sizes).all()


def test_predictors_see_labels_of_any_unit_between_a_tenth_and_one():
    x = np.eye(12)
    for unit in (1e-4, 1.0, 3e5):
        fitted = Surrogate().fit(x, unit * np.linspace(0.2, 0.9, 12))
        assert 0.1 <= 0.9 * unit / fitted.scale_ <= 1
    dull = Surrogate().fit(x, np.zeros(12))
    assert dull.scale_ == 1
    assert dull.error_ == 0
    assert np.allclose(dull.predict(x), 0)


@pytest.mark.parametrize("settings", [{"population": 1}, {"measurements": 0}])
def test_a_search_of_next_to_nothing_is_refused(settings):
    with pytest.raises(BadInput, match="population"):
        LINAS(**settings)(Bowls(), None, Budget())


def test_all_of_a_small_space_comes_at_random_once():
    archive = Archive(Bowls(), None)
    rows = [tuple(row) for row in _at_random(archive, 5, np.random.default_rng(0))]
    assert len(rows) == len(set(rows)) == archive.size
    assert rows != sorted(rows)


def test_of_a_space_too_large_to_list_as_many_unknown_choices_come_as_asked():
    class Vast(Bowls):
        genes: ClassVar = dict.fromkeys("abcdef", 9)

    archive = Archive(Vast(), None)
    assert archive.size > 10_000
    for count in (1, 7):
        found = LINAS()._unknown(archive, count, np.random.default_rng(0))
        assert len({tuple(codes) for codes in found}) == count


def test_a_label_near_zero_does_not_decide_alone():
    """The error is a mean percentage, of a hundredth of the mean label at least."""
    x = np.random.default_rng(0).normal(size=(12, 3))
    y = np.array([1e-9, *np.linspace(0.3, 0.9, 11)])
    fitted = Surrogate(folds=3, seed=4).fit(x, y)
    cut = KFold(3, shuffle=True, random_state=4)
    least = np.maximum(y, y.mean() / 100)
    errors = [np.mean(np.abs(cross_val_predict(m, x, y, cv=cut) - y) / least) for m in candidates()]
    assert fitted.error_ == pytest.approx(min(errors))
    assert type(fitted.model_) is type(candidates()[int(np.argmin(errors))])


def test_peers_are_for_so_many_objectives():
    for name, objectives in (("ga", 2), ("nsga2", 1), ("cma-es", 3), ("hill", 2)):
        with pytest.raises(BadInput, match="cannot search"):
            evolve(name, np.array([2, 2]), objectives, lambda rows: rows, population=4, evaluations=8, seed=0)
