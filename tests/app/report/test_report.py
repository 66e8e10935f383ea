"""The report, on made-up figures."""

from html.parser import HTMLParser

import pytest

from netwright.app.candidates.control import CONTROL, WHY
from netwright.app.report import report
from netwright.core.budget import Target
from netwright.core.measure.paired import Change
from netwright.core.signature import Input, Signature

BEFORE = {
    "accuracy": 0.95, "onnx_latency_ms": 1.0, "torch_latency_ms": 2.0, "bytes": 4_000_000, "parameters": 1_000_000,
    "macs": 5_000_000, "ece": 0.02, "nll": 0.2, "validation": 0.96, "onnx_ratio": 1.0, "torch_ratio": 1.0,
}  # fmt: skip
AFTER = {
    **BEFORE, "accuracy": 0.958, "onnx_latency_ms": 0.41, "torch_latency_ms": 3.1, "bytes": 1_000_000,
    "onnx_ratio": 0.4, "onnx_interval": (0.38, 0.42), "torch_ratio": 1.5, "torch_interval": (1.4, 1.6),
}  # fmt: skip


def trial(key, label, latency, accuracy, why, **more):
    row = {
        "key": key, "slug": key, "label": label, "status": "done", "seconds": 12.0, "accuracy": accuracy,
        "accuracy_change": accuracy - 0.96, "accuracy_change_low": accuracy - 0.97,
        "accuracy_change_high": accuracy - 0.95, "onnx_latency_ms": latency, "onnx_ratio": latency, "bytes": 1e6,
        "onnx_interval_low": latency * 0.95, "onnx_interval_high": latency * 1.05, "faster": 1 / latency, "why": why,
    }  # fmt: skip
    return row | more


def evidence(**more) -> report.Evidence:
    given = dict(  # noqa: C408
        subject="cnn (1.0 M parameters), task photos", task_line="photos", target=Target(faster=2, max_drop=0.01),
        met=True, sentence="2.50x faster in ONNX Runtime, but 1.50x slower in PyTorch.", primary="accuracy",
        before=BEFORE, after=AFTER, changes={"accuracy": Change(0.008, -0.001, 0.0171, 2000)},
        trials=[
            trial("static-int8", "static int8 quantisation", 0.4, 0.961, "chosen: the only one that meets it"),
            trial("taylor-pruning", "taylor pruning 60 %, seed 1, 40 s", 0.3, 0.95, "1.0 points less accurate",
                  blown_up=1.0, note="its probabilities have blown up: negative log likelihood 54"),
            trial(CONTROL, "the given network, trained on", 1.01, 0.97, WHY),
            {"key": "x", "slug": "rethink", "label": "rethink", "status": "failed", "why": "out of memory"},
        ],
        chosen="static-int8", chosen_text="Static int8.", test_count=2000, validation_count=1,
        signature=Signature("classification", "image", (Input("input", (3, 32, 32)),), "logits of 2 classes"),
        versions={"netwright": "0.1.0"}, machine={"processor": "a processor"}, date="2026-01-01",
        made=[("seed", "0")], warnings=["the network may have learned from them"], notes=["A note."],
    )  # fmt: skip
    return report.Evidence(**(given | more))


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(evidence())


def test_the_page_is_sound_and_needs_nothing_else(page):
    reader = Balance()
    reader.feed(page)
    assert reader.open == []
    assert 'src="http' not in page
    assert "@media print" in page
    assert "width=device-width" in page


def test_verdict_warnings_and_first_figures_come_first(page):
    places = [
        page.index(words)
        for words in (
            "<strong>Met:</strong> 2.50x faster in ONNX Runtime, but 1.50x slower", 'class="warnings"',
            "the network may have learned from them.", 'class="card"', "Before and after", "Every candidate",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert [card["value"] for card in report.cards(evidence())] == [
        "2.50x faster", "1.50x slower", "4.00x smaller", "+0.8 points",
    ]  # fmt: skip
    assert "95.0 → 95.8 % [-0.1, +1.7]" in page


def test_before_and_after_speak_as_the_verdict_does(page):
    rows = {r["name"]: r["change"] for r in report.comparison(BEFORE, AFTER, evidence().changes)}
    assert rows["accuracy (test)"] == "+0.8 points [-0.1, +1.7]"
    assert rows["latency, ONNX Runtime"] == "2.50x faster [2.38, 2.63]", (
        "not 1 / 0.41: the ratios were measured in turn"
    )
    assert rows["latency, PyTorch"] == "1.50x slower [1.40, 1.60]"
    level = report.comparison(BEFORE, {**AFTER, "onnx_ratio": 0.98, "onnx_interval": (0.9, 1.1)}, {})
    assert [r["change"] for r in level if r["name"] == "latency, ONNX Runtime"] == [
        "1.02x faster [0.91, 1.11] (level)"
    ]


def test_candidates_are_shown_with_change_note_and_reason(page):
    for words in (
        "★ static int8 quantisation", "taylor pruning 60 %, seed 1, 40 s", '<span class="bad">its probabilities',
        '<tr class="control"><td>the given network, trained on', "failed: out of memory",
        "0.99x (level)", "(level): neither",
        "+0.1 [-0.9, +1.1]", "1 validation example against", "original, trained on",
    ):  # fmt: skip
        assert words in page, words


def test_regression_reads_as_regression():
    figures = {"r2": 0.9, "mae": 1.0, "rmse": 2.0}
    before, after = (
        {k: v for k, v in f.items() if k not in ("accuracy", "ece", "nll")} for f in (BEFORE, AFTER)
    )
    trials = [
        trial("static-int8", "int8", 0.4, 0.9, "chosen") | {"r2": 0.89, "r2_change": -0.01, "r2_change_low": -0.02,
                                                           "r2_change_high": 0.0},
    ]  # fmt: skip
    changes = {name: Change(0.01, -0.01, 0.03, 150) for name in ("r2", "mae", "rmse")}
    page = report.render(
        evidence(
            primary="r2", before={**before, **figures}, after={**after, **figures}, changes=changes, trials=trials,
            test_count=1, warnings=[],
        )
    )  # fmt: skip
    body = page[page.index("<main>") :]
    for words in ("at most 0.01 of R2 lost", "R² (test)", "MAE (test)", "RMSE (test)", "-0.0100 [-0.0200, 0.0000]",
                  "R2 on 1 test example that"):  # fmt: skip
        assert words in body, words
    text = body[: body.index("How to use")]
    assert "accura" not in text
    assert "points" not in text.replace('"points"', "")
    assert 'class="warnings"' not in body
