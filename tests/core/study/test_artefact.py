import os
import stat
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from netwright.core.errors import BadInput
from netwright.core.study import artefact


class Doubled(nn.Module):
    """Holds a lambda, which plain pickle refuses."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.last = inner, lambda x: 2 * x

    def forward(self, x):
        return self.last(self.inner(x))


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_weights_come_back_trainable(wrap):
    network = Doubled(nn.Sequential(wrap(nn.Linear(4, 4)), nn.ReLU(), wrap(nn.Conv1d(1, 2, 3)))).eval()
    back = artefact.unpack(artefact.packed(network))
    x = torch.randn(5, 1, 4)
    assert torch.equal(back(x), network(x))
    assert list(back.state_dict()) == list(network.state_dict())
    back(x).sum().backward()
    assert all(p.grad is not None for p in back.parameters() if p.requires_grad)
    with torch.no_grad():
        for p in back.parameters():
            p.mul_(1.5)
    assert not torch.equal(back(x), network(x))


def test_mapped_tensors_are_copied_on_write(tmp_path):
    path = tmp_path / "x.pt"
    artefact.pack(torch.arange(10.0), path)
    before = path.read_bytes()
    one, two = artefact.unpack(path, mapped=True), artefact.unpack(path, mapped=True)
    one.zero_()
    assert torch.equal(two, torch.arange(10.0))
    assert path.read_bytes() == before


def test_what_cannot_be_packed_is_named():
    with pytest.raises(BadInput, match=r"cannot be sent .*lock"):
        artefact.packed(threading.Lock())


def test_signature_holds_content_and_place():
    signature = artefact.sign(b"abc", "here")
    assert artefact.check(b"abc", "here", signature)
    assert not artefact.check(b"abd", "here", signature)
    assert not artefact.check(b"abc", "there", signature)


def sign_elsewhere(home) -> str:
    code = "from netwright.core.study.artefact import sign; print(sign(b'abc', 'here'))"
    environment = os.environ | {"XDG_CONFIG_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_key_is_kept_for_the_user_alone(tmp_path):
    assert sign_elsewhere(tmp_path) == sign_elsewhere(tmp_path) != sign_elsewhere(tmp_path / "other")
    assert stat.S_IMODE((tmp_path / "netwright" / "study.key").stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "netwright") == ["study.key"]


def test_without_a_place_for_the_key_there_is_still_one(tmp_path):
    (tmp_path / "file").write_text("")
    assert len(sign_elsewhere(tmp_path / "file").strip()) == 64
