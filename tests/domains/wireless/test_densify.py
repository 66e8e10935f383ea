import numpy as np
import pytest
from scipy import integrate, stats

from netwright.core.errors import BadInput, NotApplicable
from netwright.domains.wireless.densify import (
    Densification,
    Densify,
    Slope,
    mean_stations_above,
    order,
    regime,
)
from netwright.domains.wireless.parts.fading import (
    Law,
    LogNormal,
    LogPareto,
    Nakagami,
    Pareto,
    Product,
    Rayleigh,
    hill,
    limit_coverage,
)  # fmt: skip
from netwright.domains.wireless.parts.path_loss import PathLoss


@pytest.mark.parametrize(
    ("slope", "fading"), [(3.0, Rayleigh()), (4.0, Rayleigh()), (4.0, LogNormal(6.0)), (4.0, Pareto(2.5))]
)
def test_middle_regime_equals_the_closed_form(slope, fading):
    """y^-rho sin(pi rho)/(pi rho), whatever the fading: 300 stations and the mean of those outside."""
    found = Densify(PathLoss((slope,)), fading, densities=(100.0,), users=6000, beyond=True)()
    for threshold in (1.0, 2.0, 5.0):
        assert found.coverage(threshold)[0] == pytest.approx(limit_coverage(2 / slope, threshold), abs=0.02)


def test_heavy_fading_over_a_bounded_near_field_has_the_same_limit():
    found = Densify(PathLoss((4.0,), near=0.3), Pareto(0.6), densities=(1000.0,), users=3000)()
    assert found.tail_index == 0.6
    assert found.coverage(1.0)[0] == pytest.approx(limit_coverage(0.6, 1.0), abs=0.025)


def test_sinr_equals_direct_sums():
    model = Densify(PathLoss((3.0,)), Rayleigh(), noise=5.0, densities=(4.0, 9.0), users=20, seed=3)
    found = model()
    rng = np.random.default_rng(3)
    for user in range(20):
        more = rng.poisson(np.array([4.0, 5.0]) * np.pi)
        powers = np.exp(model.log_powers(int(more.sum()), rng))
        for k, count in enumerate(np.cumsum(more)):
            p = powers[:count]
            expected = p.max() / (p.sum() - p.max() + 5.0) if count else 0.0
            assert np.exp(found.log_sinr[k, user]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("path_loss", "fading", "index", "answer"),
    [
        (PathLoss((4.0,)), Rayleigh(), 0.5, "saturates"),
        (PathLoss((1.6, 4.0), (0.5,)), Rayleigh(), 1.25, "vanishes"),
        (PathLoss((1.6, 4.0), (0.5,)), Pareto(0.7), 0.7, "saturates"),
        (PathLoss((4.0,), near=0.1), Nakagami(3.0), np.inf, "vanishes"),
        (PathLoss((4.0,), near=0.1), LogPareto(), 0.0, "grows"),
        (PathLoss((4.0,)), Product((Rayleigh(), Pareto(0.3))), 0.3, "saturates"),
        (PathLoss((4.0,), near=0.1), Law(stats.lognorm(1.0), np.inf), np.inf, "vanishes"),
        (PathLoss((2.0,)), Rayleigh(), 1.0, "vanishes"),
    ],
)
def test_regimes(path_loss, fading, index, answer):
    model = Densify(path_loss, fading)
    assert model.tail_index == pytest.approx(index)
    assert model.regime == answer


def test_simulated_slopes_follow_the_regimes():
    densities = (10.0, 100.0, 1000.0, 10_000.0)
    run = lambda loss, fading: Densify(loss, fading, densities=densities, users=150)()
    bounded = PathLoss((4.0,), near=0.2)
    vanishing = run(bounded, Law(stats.uniform(1.0, 0.01), np.inf))
    # bounded powers: the strongest stays, the sum grows like the density
    assert vanishing.sinr_slope() == pytest.approx(-1.0, abs=0.02)
    assert vanishing.rate_slope().high < -0.5
    growing = run(bounded, LogPareto())
    # P(log m > t) = (1 + t)^-2: the logarithm of the strongest grows like the root of the density, the rate with it
    assert growing.rate_slope().value == pytest.approx(0.5, abs=0.15)
    steady = run(PathLoss((4.0,)), Rayleigh())
    slope = steady.rate_slope()
    assert slope.low < slope.value < slope.high
    assert abs(slope.value) < 0.1
    area = np.polyfit(np.log(densities[-3:]), np.log(steady.area_efficiency()[-3:]), 1)[0]
    assert area == pytest.approx(1 + slope.value)
    assert (steady.coverage_density(2.0) == np.asarray(densities) * steady.coverage(2.0)).all()


def test_densities_share_their_stations():
    """Common random numbers: what happens at a density does not depend on the denser ones asked for."""
    few = Densify(densities=(5.0,), users=1, seed=4)()
    many = Densify(densities=(5.0, 50.0), users=1, seed=4)()
    assert many.log_sinr.shape == (2, 1)
    assert Densify(users=5)().log_sinr == pytest.approx(Densify(users=5)().log_sinr)
    assert few.log_sinr.shape == (1, 1)


def test_noise_lowers_sinr_and_an_empty_disc_has_none():
    quiet = Densify(densities=(1.0, 10.0), users=300)()
    noisy = Densify(densities=(1.0, 10.0), users=300, noise=10.0)()
    assert (noisy.log_sinr <= quiet.log_sinr).all()
    assert (noisy.log_sinr < quiet.log_sinr).mean() > 0.9
    empty = Densify(densities=(0.1,), users=400)().log_sinr[0] == -np.inf
    assert empty.mean() == pytest.approx(np.exp(-0.1 * np.pi), abs=0.07)


@pytest.mark.parametrize(
    "loss", [PathLoss((3.5,)), PathLoss((1.5, 3.0, 4.5), (0.3, 2.0)), PathLoss((2.0, 4.0), (1.5,), near=0.2)]
)
def test_path_loss(loss):
    r = np.geomspace(max(loss.near, 0.01), 20, 400)
    gain = loss.log_gain(r)
    assert (np.diff(gain) < 0).all()
    assert np.abs(np.diff(gain)).max() < 0.2  # continuous
    assert loss.log_gain(np.array(1.0)) == pytest.approx(0.0)
    assert loss.distance(gain) == pytest.approx(r)
    assert loss.distance(loss.log_gain(np.array(loss.near)) + 0.1 if loss.near else np.inf) == 0
    for radius in (0.1, 0.4, 3.0):
        exact, _ = integrate.quad(
            lambda x: 2 * np.pi * np.exp(loss.log_gain(np.array(x)) + 2 * np.log(x)) / x, radius, np.inf,
            limit=400,
        )  # fmt: skip
        assert loss.beyond(radius) == pytest.approx(exact, rel=1e-4)


def test_mean_measure_counts_the_stations():
    model = Densify(PathLoss((1.5, 4.0), (0.4,)), Pareto(1.2), seed=1)
    rng = np.random.default_rng(0)
    counted = [(model.log_powers(rng.poisson(50 * np.pi), rng) > 2.0).sum() for _ in range(800)]
    error = np.std(counted) / np.sqrt(len(counted))
    assert mean_stations_above(model, 2.0, 50.0) == pytest.approx(np.mean(counted), abs=4 * error)


@pytest.mark.parametrize(
    ("law", "index"), [(stats.pareto(0.8), 0.8), (stats.cauchy(), 1.0), (stats.t(2), 2.0)]
)
def test_hill_estimates_known_tails(law, index):
    sample = np.abs(law.rvs(200_000, random_state=0))
    estimate, error = hill(np.log(sample), 2000)
    assert estimate == pytest.approx(index, abs=4 * error + 0.02)
    assert error == pytest.approx(index / np.sqrt(2000), rel=0.1)


def test_hill_finds_the_power_tail_of_the_model():
    model = Densify(PathLoss((1.6, 4.0), (0.5,)), Pareto(0.7))
    powers = model.log_powers(400_000, np.random.default_rng(0))
    estimate, _ = hill(powers, 1000)
    assert estimate == pytest.approx(model.tail_index, abs=0.1)


@pytest.mark.parametrize(
    ("law", "mean"), [(Rayleigh(), 1), (Nakagami(3), 1), (LogNormal(3), None), (Pareto(3), 1.5)]
)
def test_fading_means(law, mean):
    sample = np.exp(law.log_sample(np.random.default_rng(0), 400_000))
    assert law.mean == pytest.approx(mean or sample.mean(), rel=0.01)
    assert sample.mean() == pytest.approx(law.mean, rel=0.02)


def test_log_pareto_is_its_own_law():
    log_m = LogPareto(2.0).log_sample(np.random.default_rng(0), 100_000)
    assert (log_m > 3.0).mean() == pytest.approx(4.0**-2, abs=0.003)


def test_order_and_refusals():
    models = [Densify(fading=Pareto(a), path_loss=PathLoss(near=0.1)) for a in (2.0, 0.4, 0.9)]
    assert [m.fading.index for m in order(models)] == [0.4, 0.9, 2.0]
    with pytest.raises(BadInput, match="rise"):
        Densify(densities=(10.0, 5.0))()
    with pytest.raises(BadInput, match="break"):
        PathLoss((2.0, 4.0))
    with pytest.raises(BadInput):
        regime(-1.0)
    with pytest.raises(NotApplicable, match="no mean"):
        Densify(fading=Pareto(0.7), beyond=True)()


def test_the_number_of_stations_goes_with_the_area():
    empty = Densify(densities=(0.1,), radius=2.0, users=600)().log_sinr[0] == -np.inf
    assert empty.mean() == pytest.approx(np.exp(-0.1 * np.pi * 2**2), abs=0.06)


def test_fading_is_drawn_from_the_generator_and_products_are_factor_by_factor():
    draw = lambda law: law.log_sample(np.random.default_rng(5), 50)
    law = Law(stats.lognorm(1.0), np.inf)
    assert (draw(law) == draw(law)).all()
    both = Product((law, Rayleigh()))
    rng = np.random.default_rng(5)
    assert draw(both) == pytest.approx(law.log_sample(rng, 50) + Rayleigh().log_sample(rng, 50))


def test_coverage_counts_users_above_the_threshold_which_is_1_by_default():
    found = Densification(np.array([2.0]), np.log([[0.5, 0.9, 1.1, 3.0]]), "saturates", 0.5)
    assert found.coverage() == 0.5
    assert found.coverage(2.0) == 0.25
    assert found.coverage_density() == 1.0


def test_the_interval_of_a_slope_is_that_of_a_mean_over_users():
    """A user's rate at density d is u d^0.3: a slope of 0.3, exact for every user, wherever means are taken. With
    noise on each user the interval is 3.92 standard errors of the mean wide."""
    rng = np.random.default_rng(0)
    densities, users = np.array([1.0, 10.0, 100.0]), 900
    noise = 0.5 * rng.standard_normal((3, users))
    rates = 5 * densities[:, None] ** 0.3 * (1 + 0.2 * noise)
    log_sinr = np.log(2.0**rates - 1)
    slope = Densification(densities, log_sinr, "grows", 0.0).rate_slope()
    x = np.log(densities) - np.log(densities).mean()
    error = np.sqrt((x**2 * 0.1**2).sum()) / (x @ x) / np.sqrt(users)
    assert slope.value == pytest.approx(0.3, abs=4 * error)
    assert slope.high - slope.low == pytest.approx(3.92 * error, rel=0.2)


def test_regimes_of_slopes():
    assert [Slope(v, v, v).regime for v in (-0.5, -0.04, 0.05, 0.06)] == [
        "vanishes", "saturates", "saturates", "grows",
    ]  # fmt: skip


@pytest.mark.parametrize("densities", [(), (0.0, 1.0), (-1.0, 1.0), (2.0, 2.0)])
def test_densities_are_positive_and_rise(densities):
    with pytest.raises(BadInput, match="densities"):
        Densify(densities=densities)()


@pytest.mark.parametrize("setting", [{"noise": -1.0}, {"radius": 0.0}, {"users": 0}])
def test_other_settings_that_make_no_sense(setting):
    with pytest.raises(BadInput, match="noise"):
        Densify(**setting)()


def test_what_the_closed_forms_need():
    for top in (1, 10):
        with pytest.raises(ValueError, match="top"):
            hill(np.arange(10.0), top)
    for index, threshold in ((0.0, 2.0), (1.0, 2.0), (0.5, 0.9)):
        with pytest.raises(ValueError, match="closed form"):
            limit_coverage(index, threshold)
