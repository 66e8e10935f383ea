"""Pruning, then int8: exactly the two in a row, smaller than either alone."""

import torch

from netwright.compress.parts.prune import Prune
from netwright.compress.prune_then_int8 import PruneThenInt8
from netwright.compress.static_int8 import StaticInt8
from netwright.core.budget import Budget
from netwright.core.fit import Fit
from netwright.core.measure.cost import cost
from netwright.core.metrics import evaluate
from netwright.data import task as named_task
from netwright.models import build


def test_it_is_both_in_a_row() -> None:
    task = named_task("digits")
    network = build("cnn", task.input_shape, task.outputs, widths=(16, 32))
    Fit(epochs=4, lr=3e-3)(network, task)
    both = PruneThenInt8(ratio=0.6, epochs=2)(network, task, Budget())
    pruned = Prune(ratio=0.6, epochs=2)(network, task, Budget())
    quantised = StaticInt8()(network, task, Budget())
    x = task.example(5)[0]
    assert torch.equal(both(x), StaticInt8()(pruned, task, Budget())(x))
    costs = {
        n: cost(net, task.example()) for n, net in (("both", both), ("prune", pruned), ("int8", quantised))
    }
    assert costs["both"].bytes < 0.35 * costs["prune"].bytes
    assert costs["both"].bytes < 0.75 * costs["int8"].bytes
    assert costs["both"].macs == costs["prune"].macs
    assert evaluate(both, task)["accuracy"] > evaluate(pruned, task)["accuracy"] - 0.02
