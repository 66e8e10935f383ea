import torch

from netwright.core.contracts import Explanation, Verdict


def test_explanations_and_verdicts_print_short():
    found = Explanation(
        torch.zeros(4, 28, 28), torch.zeros(4), "grad-cam", {"deletion": torch.tensor([0.1, 0.3, 0.2, 0.2])}
    )
    assert repr(found) == "Explanation(grad-cam: 4 x 28 x 28, deletion 0.2)"
    verdict = Verdict(["holds", "unknown", "holds"], torch.zeros(3), torch.zeros(3, 784))
    assert repr(verdict) == "Verdict(2 holds, 1 unknown)"
