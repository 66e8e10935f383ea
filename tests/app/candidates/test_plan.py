import pytest

from netwright.app.candidates import plan
from netwright.app.candidates.run import trains
from netwright.core import catalogue
from netwright.core.budget import Budget, Target
from netwright.core.errors import BadInput, UnknownName

TARGET = Target(faster=2.0, max_drop=0.01)
FIRST, SECOND = plan.rounds(100)


def row(slug, ratio, faster, accuracy=0.97, size=500):
    return {
        "slug": slug, "status": "done", "settings": {"ratio": ratio}, "faster": faster, "accuracy": accuracy,
        "bytes": size, "key": f"{slug}{ratio}",
    }  # fmt: skip


def test_every_method_gets_the_same_time_and_the_sum_is_the_first_share():
    trials = plan.first_round(TARGET, None, Budget(seconds=100), 0)
    assert {t.slug for t in trials} >= {r.slug for r in plan.default_methods()}
    assert len({t.budget.seconds for t in trials}) == 1
    trained = [t for t in trials if trains(t)]
    assert sum(t.budget.seconds for t in trained) == pytest.approx(
        plan.rounds(100)[0].share * (100 - plan.ending(0)), abs=1
    )
    assert len({t.key for t in trials}) == len(trials)


def test_given_time_a_student_of_another_kind_is_tried_on_images():
    plain = plan.first_round(TARGET, None, Budget(seconds=400), 0)
    more = plan.first_round(TARGET, None, Budget(seconds=400), 0, images=True)
    assert [t.label for t in more if "student" in t.settings] == ["knowledge distillation 60 %, student cnn"]
    assert {t.slug for t in more} == {t.slug for t in plain}
    short = plan.first_round(TARGET, None, Budget(seconds=200), 0, images=True)
    assert not any("student" in t.settings for t in short)


def test_each_form_of_a_method_is_a_family():
    narrow = row("distillation", 0.6, 1.2, 0.97)
    other = row("distillation", 0.6, 3.0, 0.975)
    other["settings"]["student"] = "cnn"
    trials = plan.later_round(1, [narrow, other], ORIGINAL, TARGET, "accuracy", Budget(seconds=1800), 0)
    assert trials[0].settings["student"] == "cnn"
    assert trials[0].settings["ratio"] < 0.6  # it has speed to spare
    assert {t.settings.get("student") for t in trials} == {
        "cnn"
    }  # the narrow one would lose more to be as fast
    narrow |= {"faster": 2.2, "accuracy": 0.975}
    trials = plan.later_round(1, [narrow, other], ORIGINAL, TARGET, "accuracy", Budget(seconds=1800), 0)
    assert {t.settings.get("student") for t in trials} == {"cnn", None}


def test_a_small_budget_tries_fewer():
    trials = plan.first_round(TARGET, None, Budget(seconds=10), 0)
    assert sum(trains(t) for t in trials) == 1


@pytest.mark.parametrize("target", [Target(faster=20), Target(faster=1000), Target(smaller=20)])
def test_no_trial_is_planned_twice_where_strengths_end(target):
    trials = plan.first_round(target, None, Budget(seconds=100), 0)
    assert len({t.key for t in trials}) == len(trials)


def test_a_plan_repeats_so_that_an_interrupted_study_continues():
    first, second = (plan.first_round(TARGET, None, Budget(seconds=100), 0) for _ in range(2))
    assert [t.key for t in first] == [t.key for t in second]


def test_more_speed_asks_for_more_removal():
    ratios = [plan.asked_ratio(Target(faster=f)) for f in (1.5, 2, 3, 5)]
    assert ratios == sorted(ratios)
    assert all(1 / (1 - r) > f for r, f in zip(ratios, (1.5, 2, 3, 5), strict=True))


ORIGINAL = {"bytes": 1000, "accuracy": 0.98, "faster": 1.0}


def test_the_needed_strength_lies_on_the_measured_line():
    """Latency that falls with the square root of what is kept: 2.2 times faster needs 1 - 1 / 2.2**2 removed."""
    rows = [row("a", r, (1 - r) ** -0.5) for r in (0.5, 0.8)]
    needed = lambda some: plan.needed_ratio(some, ORIGINAL, ORIGINAL, Target(faster=2.0))
    assert needed(rows) == pytest.approx(1 - 2.2**-2)
    assert needed(rows[:1]) == pytest.approx(1 - 2.2**-2)


def test_what_is_fast_without_any_strength_needs_little():
    int8 = {**ORIGINAL, "faster": 2.86}
    rows = [row("prune-then-int8", 0.74, 6.39)]
    assert plan.needed_ratio(rows, int8, ORIGINAL, Target(faster=3.0)) == pytest.approx(0.21, abs=0.02)


def test_the_second_round_takes_the_family_that_promises_most():
    rows = [row("taylor-pruning", 0.6, 2.0, 0.90), row("magnitude-pruning", 0.6, 2.0, 0.97)]
    trials = plan.later_round(1, rows, ORIGINAL, TARGET, "accuracy", Budget(seconds=100), 0)
    assert [t.slug for t in trials] == ["magnitude-pruning"] * 2
    assert trials[0].settings["ratio"] < trials[1].settings["ratio"]
    assert sum(t.budget.seconds for t in trials) == pytest.approx(
        plan.rounds(100)[1].share * (100 - plan.ending(0)), abs=1
    )
    close = [row("taylor-pruning", 0.6, 2.0, 0.965), row("magnitude-pruning", 0.6, 2.0, 0.97)]
    trials = plan.later_round(1, close, ORIGINAL, TARGET, "accuracy", Budget(seconds=100), 0)
    assert {t.slug for t in trials} == {"taylor-pruning", "magnitude-pruning"}


def test_quantisation_alone_is_where_pruning_then_int8_begins():
    quantised = {**row("static-int8", 0, 2.86, 0.98), "settings": {}}
    rows = [row("taylor-pruning", 0.74, 3.7, 0.95), row("prune-then-int8", 0.74, 6.39, 0.94), quantised]
    trials = plan.later_round(
        1, rows, ORIGINAL, Target(faster=3.0, max_drop=0.01), "accuracy", Budget(seconds=100), 0
    )
    assert trials[0].slug == "prune-then-int8"
    assert trials[0].settings["ratio"] < 0.3


def test_a_long_budget_halves_its_trials_and_gives_each_twice_the_time():
    budget = Budget(seconds=1800)
    slugs = ("taylor-pruning", "magnitude-pruning", "rethink", "distillation")
    rows = [row(slug, 0.6, 2.0, 0.97 - 0.002 * i) for i, slug in enumerate(slugs)]
    later = [
        plan.later_round(number, rows, ORIGINAL, TARGET, "accuracy", budget, 0)
        for number in range(1, len(plan.rounds(1800)))
    ]
    assert [len(trials) for trials in later] == [4, 2, 1]
    assert {t.slug for t in later[0]} == set(slugs)
    assert [t.slug for t in later[1]] == list(slugs[:2])
    seconds = [trials[0].budget.seconds for trials in later]
    assert seconds[1] == pytest.approx(2 * seconds[0], rel=0.01)
    assert seconds[2] == pytest.approx(4 * seconds[0], rel=0.01)
    assert len({t.seed for trials in later for t in trials}) == 3
    assert sum(r.share for r in plan.rounds(1800)) == pytest.approx(0.85)


def test_without_anything_to_strengthen_there_is_no_second_round():
    failed = {"slug": "static-int8", "status": "failed", "settings": {}}
    assert plan.later_round(1, [failed], {}, TARGET, "accuracy", Budget(seconds=100), 0) == []


def test_names_are_checked():
    with pytest.raises(UnknownName, match="Did you mean"):
        plan.first_round(TARGET, ["taylor-prunin"], Budget(seconds=10), 0)
    with pytest.raises(BadInput, match="goal calibrate"):
        plan.first_round(TARGET, ["temperature-scaling"], Budget(seconds=10), 0)


def test_what_was_not_tried_is_named():
    slugs = [m.slug for m in catalogue.of_goal("compress") if m.contract == "Transform"]
    assert {u["slug"] for u in plan.untried(slugs[:1])} == set(slugs[1:])  # an Analysis cannot be tried
