import pytest

from netwright.app.candidates.choose import choose
from netwright.core.budget import Target

ORIGINAL = {"key": "o", "accuracy": 0.98, "onnx_latency_ms": 1.0, "bytes": 1000, "faster": 1.0}


def row(key, accuracy=0.98, latency=0.4, size=500, status="done", reason=""):
    figures = {"accuracy": accuracy, "onnx_latency_ms": latency, "bytes": size, "faster": 1 / latency}
    return {"key": key, "status": status, "reason": reason, **(figures if status == "done" else {})}


def pick(rows, target, examples=10_000):
    return choose(rows, ORIGINAL, target, "accuracy", examples)


def test_the_fastest_of_those_near_the_best():
    rows = [row("a", 0.980, 0.40), row("b", 0.979, 0.30), row("c", 0.972, 0.10)]
    choice = pick(rows, Target(faster=2, max_drop=0.01))
    assert (choice.row["key"], choice.meets) == ("b", True)
    assert "less accurate than the best" in choice.why["c"]
    assert "not the fastest" in choice.why["a"]


def test_few_examples_make_small_differences_no_reason():
    rows = [row("a", 0.980, 0.40), row("c", 0.972, 0.10)]
    assert pick(rows, Target(faster=2, max_drop=0.01), examples=100).row["key"] == "c"


def test_a_gain_of_one_does_not_shut_out_what_is_as_good_as_the_given_network():
    rows = [row("a", 0.995, 0.40), row("b", 0.980, 0.20), row("c", 0.972, 0.10)]
    choice = pick(rows, Target(faster=2, max_drop=0.01))
    assert choice.row["key"] == "b", "0.980 is what the given network has"
    assert choice.why["b"].startswith(
        "chosen: the fastest of 2 within one standard error of the given network"
    )
    assert "less accurate than the given network by more than one standard error" in choice.why["c"]


def test_a_speed_with_something_to_spare_goes_before_one_that_is_only_just_met():
    rows = [row("a", 0.985, 1 / 2.1, size=100), row("b", 0.980, 1 / 2.19), row("c", 0.980, 1 / 2.2001)]
    choice = pick(rows, Target(faster=2))
    assert choice.row["key"] == "c"
    assert "the only one within one standard error of the given network" in choice.why["c"]
    assert choice.why["c"].endswith("that has 10 % to spare")
    assert choice.why["a"] == "meets it, but only just: others have 10 % to spare"
    assert pick(rows[:2], Target(faster=2)).row["key"] == "a", (
        "none has more, so the level one that is smaller"
    )


def as_r2(rows, **errors):
    """The rows' accuracies as R2, with standard errors by key."""
    return [
        {**r, "r2": r["accuracy"], **({"r2_error": errors[r["key"]]} if r["key"] in errors else {})}
        for r in rows
    ]


def test_metrics_without_a_known_error_are_not_given_that_of_an_accuracy():
    *rows, original = as_r2([row("a", 0.90, 0.40), row("b", 0.88, 0.30), {**ORIGINAL, "accuracy": 0.91}])
    choice = choose(rows, original, Target(faster=2, max_drop=0.05), "r2", 200)
    assert choice.row["key"] == "a"
    assert choice.why["a"] == "chosen: the best R2 of those that meet it"
    assert choice.why["b"] == "meets it, but is of a lower R2 than the best"


def test_star_and_reasons_agree_for_regression():
    """The standard error of R2 decides as that of an accuracy does, and the reasons name it."""
    rows = [row("a", 0.90, 0.40), row("b", 0.88, 0.30), row("c", 0.86, 0.10)]
    *rows, original = as_r2([*rows, {**ORIGINAL, "accuracy": 0.91}], a=0.02, b=0.02, c=0.02)
    choice = choose(rows, original, Target(faster=2, max_drop=0.1), "r2", 200)
    assert choice.row["key"] == "b", "0.88 lies within sqrt(2) 0.02 of 0.90, 0.86 does not"
    assert choice.why["b"] == "chosen: the fastest of 2 within one standard error of the best (0.0283)"
    assert choice.why["a"] == "meets it, but is not the fastest"
    assert (
        choice.why["c"]
        == "meets it, but is of a lower R2 than the best by more than one standard error (0.0283)"
    )
    lacking = choose(rows, original, Target(faster=2, max_drop=0.04), "r2", 200).why["c"]
    assert lacking == "0.0500 of R2 lost"


def test_a_blow_up_is_not_chosen_while_another_meets_it():
    blown, sound = {**row("a", latency=0.2), "blown_up": 1.0}, row("b", latency=0.4)
    choice = pick([blown, sound], Target(faster=2))
    assert choice.row["key"] == "b"
    assert choice.why["a"] == "meets it, but its probabilities have blown up"
    alone = pick([blown], Target(faster=2))
    assert alone.row["key"] == "a"
    assert alone.why["a"] == "chosen: the only one that meets it; its probabilities have blown up"


def test_ties_are_explained():
    choice = pick([row("a", latency=0.300, size=400), row("b", latency=0.305, size=100)], Target(faster=2))
    assert choice.why["b"].endswith("of 2 that are as fast (within 5 %) the smallest")
    assert choice.why["a"] == "meets it, as fast (within 5 %) as the chosen one, but larger"
    even = pick([row("a", latency=0.3), row("b", latency=0.3)], Target(faster=2))
    assert "the first was taken" in even.why["b"]
    by_size = pick([row("a", latency=1.0, size=250), row("b", latency=0.3, size=255)], Target(smaller=2))
    assert by_size.why["a"] == "meets it, as small (within 5 %) as the chosen one, but slower"


def test_a_speed_missed_by_a_hair_does_not_read_as_met():
    assert pick([row("a", latency=1 / 1.9991)], Target(faster=2)).why["a"].endswith("only 1.999x faster")
    assert (
        pick([row("a", accuracy=0.98 - 0.010003)], Target(max_drop=0.01))
        .why["a"]
        .endswith("1.0003 points less accurate")
    )
    assert pick([row("a", latency=2.0)], Target(faster=2)).why["a"].endswith("2.00x slower")


def test_size_decides_when_size_was_asked():
    rows = [row("a", latency=0.2, size=300), row("b", latency=2.0, size=250)]
    assert pick(rows, Target(smaller=2)).row["key"] == "b"
    assert pick(rows, Target(smaller=2, faster=2)).row["key"] == "a"


def test_level_candidates_are_told_apart_by_the_other_figure():
    rows = [row("a", latency=1.0, size=250), row("b", latency=0.3, size=255)]
    assert pick(rows, Target(smaller=2)).row["key"] == "b"
    rows = [row("a", latency=0.300, size=400), row("b", latency=0.305, size=100)]
    assert pick(rows, Target(faster=2)).row["key"] == "b"


@pytest.mark.parametrize(
    ("candidate", "target", "said"),
    [
        (row("a", latency=0.8), Target(faster=2), "only 1.25x faster"),
        (row("a", size=800), Target(smaller=2), "only 1.25x smaller"),
        (row("a", accuracy=0.95), Target(max_drop=0.01), "3.0 points less accurate"),
    ],
)
def test_what_is_lacking_is_said(candidate, target, said):
    choice = pick([candidate], target)
    assert not choice.meets
    assert said in choice.why["a"]
    assert choice.row["key"] == "a", "the best found is still given"


def test_the_one_that_lacks_least_stands_in():
    rows = [row("a", latency=0.6), row("b", latency=0.9)]
    assert pick(rows, Target(faster=2)).row["key"] == "a"


def test_of_those_that_lack_alike_the_most_accurate_stands_in():
    rows = [
        row("a", accuracy=0.24, latency=0.95),
        row("b", accuracy=0.97, latency=0.96),
        row("c", latency=1.2),
    ]
    assert pick(rows, Target(faster=2, max_drop=0.8)).row["key"] == "b"


def test_failed_trials_keep_their_reason():
    choice = pick([row("x", status="failed", reason="out of memory"), row("a")], Target(faster=2))
    assert choice.why["x"] == "out of memory"
    assert choice.row["key"] == "a"
    assert pick([row("x", status="failed", reason="no")], Target(faster=2)).row is None


def test_a_drop_of_exactly_the_limit_is_allowed():
    assert pick([row("a", accuracy=0.97)], Target(faster=2, max_drop=0.01)).meets
