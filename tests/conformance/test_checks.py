"""The checks notice what they are there for: each wrong method here breaks one promise."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.conformance import checks
from torch import nn

from netwright.core.contracts import Explanation, Verdict
from netwright.core.errors import NotApplicable
from netwright.core.network import as_tuple, clone
from netwright.verify.parts.certify import Certify


def row(method, networks=1):
    return SimpleNamespace(slug="a-test", networks=networks, build=lambda **_: method)


def copied(network, task, budget):
    return clone(network).eval()


def shifted(network, task, budget):
    next(network.parameters()).data.add_(1.0)
    return clone(network)


def left_training(network, task, budget):
    return clone(network).train()


def by_global_chance(network, task, budget):
    made = clone(network)
    for p in made.parameters():
        p.data.add_(torch.randn_like(p))
    return made


def wider(network, task, budget):
    return nn.Sequential(clone(network), nn.Linear(3, 4)).eval()


def with_gradients(network, task, budget):
    network(*task.example()).sum().backward()
    return clone(network)


def with_a_hook(network, task, budget):
    network.register_forward_hook(lambda *_: None)
    return copied(network, task, budget)


def not_a_number(network, task, budget):
    made = clone(network)
    next(made.parameters()).data.fill_(float("nan"))
    return made


def refusing(network, task, budget):
    raise NotApplicable("this network has no heads to prune")


def test_an_honest_copy_and_an_honest_refusal_pass(tmp_path):
    assert checks.transform(row(copied), "bare", tmp_path, ".pt2") == ""
    assert checks.transform(row(refusing), "bare", tmp_path, "") == "this network has no heads to prune"


@pytest.mark.parametrize(
    "wrong",
    [shifted, left_training, by_global_chance, wider, with_gradients, with_a_hook, not_a_number],
    ids=lambda f: f.__name__,
)
def test_a_wrong_transform_is_noticed(wrong, tmp_path):
    with pytest.raises(AssertionError):
        checks.transform(row(wrong), "bare", tmp_path, ".pt2")


def test_a_refusal_without_a_reason_is_noticed(tmp_path):
    def silent(network, task, budget):
        raise NotApplicable("no")

    with pytest.raises(AssertionError, match="must say why"):
        checks.transform(row(silent), "bare", tmp_path, "")


def test_a_crash_is_no_refusal(tmp_path):
    def crashing(network, task, budget):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError):
        checks.transform(row(crashing), "bare", tmp_path, "")


def gradient(network, inputs, target=None):
    """Honest: |d output of the target / d input|, averaged over channels."""
    x = as_tuple(inputs)[0].clone().requires_grad_()
    out = network(x)
    target = out.argmax(1) if target is None else target
    (found,) = torch.autograd.grad(out.gather(1, target[:, None]).sum(), x)
    return Explanation(found.abs().mean(1), target, "gradient")


def blind_to_the_class(network, inputs, target=None):
    honest = gradient(network, inputs, torch.zeros(len(inputs), dtype=torch.int64))
    target = network(inputs).argmax(1) if target is None else target
    return Explanation(honest.attribution, target, "blind")


def with_channels(network, inputs, target=None):
    honest = gradient(network, inputs, target)
    return Explanation(honest.attribution[:, None], honest.target, "wide")


def test_explainers():
    assert checks.explainer(row(gradient), "bare") == ""
    for wrong in (blind_to_the_class, with_channels):
        with pytest.raises(AssertionError):
            checks.explainer(row(wrong), "bare")


class Rash:
    """Calls everything proved."""

    def __call__(self, network, box, budget):
        return Verdict(["holds"] * len(box.label), torch.full((len(box.label),), 0.1))


class Alarmed:
    """Offers the lower corner as a counterexample of everything."""

    def __call__(self, network, box, budget):
        count = len(box.label)
        return Verdict(["violated"] * count, torch.full((count,), -torch.inf), box.lower)


def test_verifiers():
    assert checks.verifier(row(Certify(pgd_steps=5)), "bare") == ""
    for wrong in (Rash(), Alarmed()):
        with pytest.raises(AssertionError):
            checks.verifier(row(wrong), "bare")


def test_a_method_that_takes_no_notice_of_its_budget_is_noticed():
    def heedless(network, task, budget):
        for _ in range(40):
            network(*task.example())
        return clone(network)

    patient = SimpleNamespace(contract="Transform", **vars(row(copied)))
    assert checks.ends_in_time(patient) == ""
    hasty = SimpleNamespace(contract="Transform", **vars(row(heedless)))
    with pytest.raises(AssertionError, match="a budget of 1 s took"):
        checks.ends_in_time(hasty)
