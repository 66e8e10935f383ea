import pytest
import torch
from torch import nn

from netwright.core.errors import UnknownName
from netwright.core.split import ArraySplit
from netwright.core.taps import Taps, leaves_that_run, places, stream, watching


class Twice(nn.Module):
    """A shared layer, an LSTM and a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.idle = nn.Linear(1, 1)

    def forward(self, x):
        h = self.lin(self.lin(x))
        out, _ = self.lstm(h[:, None])
        return out[:, 0]


def test_records_equal_what_passes():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.randn(3, 4)
    with Taps(net, ["0", "1"]) as taps:
        net(x)
    torch.testing.assert_close(taps["1"], net[0](x).relu())
    assert not taps["1"].requires_grad
    net(x + 1)
    assert len(taps.all("0")) == 1, "a closed context records nothing"


def test_gradients_at_a_place():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    with Taps(net, ["1"], gradients=True) as taps:
        net(torch.randn(3, 4)).sum().backward()
    torch.testing.assert_close(taps.gradient("1"), net[2].weight.expand(3, 5))


def test_edits_replace_the_output():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with Taps(net, edits={"1": torch.zeros_like}):
        out = net(torch.randn(3, 4))
    torch.testing.assert_close(out, net[2].bias.expand(3, 2))


def test_a_shared_layer_gives_every_pass_and_a_tuple_its_first_tensor():
    net, x = Twice(), torch.randn(2, 4)
    with Taps(net, ["lin", "lstm", "idle"]) as taps:
        net(x)
    assert len(taps.all("lin")) == 2
    assert taps["lstm"].shape == (2, 1, 3)
    assert "idle" not in taps
    with Taps(net, ["lin"], inputs=True) as taps:
        net(x)
    assert torch.equal(taps.all("lin")[0], x)
    assert torch.equal(taps.all("lin")[1], net.lin(x).detach())


def test_an_unknown_place_names_the_nearest():
    with pytest.raises(UnknownName, match="Did you mean 'lin'"):
        Taps(Twice(), ["lim"])


def test_stream_holds_one_batch_and_keeps_modes():
    net = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5))
    net.train()
    split = ArraySplit((torch.randn(10, 4),), torch.zeros(10, dtype=torch.long))
    batches = [b["1"] for b in stream(net, split, ["1"], batch_size=4)]
    assert [len(b) for b in batches] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(batches), net[0](split.inputs[0]).detach())
    assert net.training


def test_places_by_kind_and_in_running_order():
    net = Twice()
    assert places(net, nn.Linear) == ["lin", "idle"]
    assert leaves_that_run(net, (torch.randn(1, 4),)) == ["lin", "lstm"]


def test_watching_sees_every_output_once_and_keeps_none():
    net, x = Twice(), torch.randn(2, 4)
    seen = []
    with watching(net, ["lin", "lstm", "idle"], lambda place, value: seen.append((place, value.shape))):
        net(x)
    assert seen == [("lin", (2, 4)), ("lin", (2, 4)), ("lstm", (2, 1, 3))]
    net(x)
    assert len(seen) == 3
    with pytest.raises(UnknownName), watching(net, ["nosuch"], lambda *_: None):
        pass
