import torch

from netwright.calibrate.parts.diagram import reliability_diagram
from netwright.core.metrics import reliability


def test_the_diagram_shows_the_bins_that_hold_something() -> None:
    confidence = torch.tensor([0.05, 0.95, 0.95, 0.85])
    hits = torch.tensor([0, 1, 0, 1])
    curve = reliability(confidence, hits, bins=10)
    figure = reliability_diagram({"before": curve, "after": curve})
    line = next(t for t in figure.data if t.name.startswith("before (ECE"))
    assert [round(x, 2) for x in line.x] == [0.05, 0.85, 0.95]
    assert list(line.y) == [0.0, 1.0, 0.5]
    assert list(line.customdata) == [1, 1, 2]
    bars = [t for t in figure.data if t.type == "bar"]
    assert [sum(b.y) for b in bars] == [4, 4]
    assert "<html>" in figure.to_html()
