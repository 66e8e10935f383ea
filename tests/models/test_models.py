"""Every architecture: shapes, sizes, seeds, and files that give the same outputs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from netwright.core.errors import BadInput, NotApplicable
from netwright.core.files.export import export
from netwright.core.network import parameter_count, seeded
from netwright.models import build, names

IMAGES = [(1, 8, 8), (3, 32, 32), (2, 13, 29)]
TOKENS = ("text-transformer", "causal-transformer")
TAKES = {**{name: [(20,)] for name in TOKENS}, "lstm": [*IMAGES, (7, 5)], "mlp": [*IMAGES, (6,), (7, 5)]}
PAIRS = [(name, shape) for name in names() for shape in TAKES.get(name, IMAGES)]


def inputs(name, shape, count=3):
    if name in TOKENS:
        return torch.randint(0, 100, (count, *shape), generator=torch.Generator().manual_seed(1))
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "shape"), PAIRS)
def test_every_parameter_takes_part(name, shape):
    network = build(name, shape, 4, size=40_000 if name != "text-transformer" else 60_000)
    out = network(inputs(name, shape, 4))
    assert out.shape == ((4, 20, 4) if name == "causal-transformer" else (4, 4))
    out.pow(2).sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize(("name", "shape"), [p for p in PAIRS if p[1] in ((1, 8, 8), (3, 32, 32), (20,))])
def test_the_size_is_met_by_the_nearest_width(name, shape):
    target = 300_000
    network = build(name, shape, 10, size=target)
    assert abs(parameter_count(network) / target - 1) < 0.12
    larger = build(name, shape, 10, size=2 * target)
    assert parameter_count(larger) > parameter_count(network)


@pytest.mark.parametrize("name", names())
def test_an_impossible_size_says_what_is_possible(name):
    shape = TAKES.get(name, IMAGES)[0]
    with pytest.raises(BadInput, match=f"a {name} of 3 parameters is not possible here: the smallest has"):
        build(name, shape, 10, size=3)


@pytest.mark.parametrize("name", names())
def test_the_same_seed_gives_the_same_network(name):
    shape = TAKES.get(name, IMAGES)[0]
    made = []
    for _ in range(2):
        with seeded(5):
            made.append(build(name, shape, 3, size=60_000))
    for a, b in zip(made[0].state_dict().values(), made[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", names())
def test_onnx_and_pt2_give_the_same_outputs_at_any_batch_size(name, tmp_path):
    shape = TAKES.get(name, IMAGES)[0]
    config = {"depths": (1, 1, 1, 1)} if name == "van" else {}  # its thirteen blocks are all alike
    network = build(name, shape, 3, size=60_000, **config).eval()
    for suffix in (".onnx", ".pt2"):
        written = export(network, (inputs(name, shape, 2),), tmp_path / f"n{suffix}")
        assert written.max_error < 1e-4
        assert written.dynamic_batch


@pytest.mark.parametrize("name", [n for n in names() if n not in ("mlp", "lstm", *TOKENS)])
@pytest.mark.parametrize("shape", [(7,), (1, 7, 30), (3, 4)])
def test_what_is_no_image_is_refused(name, shape):
    with pytest.raises(NotApplicable):
        build(name, shape, 3)


def test_names_and_settings_are_checked():
    with pytest.raises(BadInput, match="Did you mean 'resnet'"):
        build("resnett", (1, 8, 8), 3)
    with pytest.raises(BadInput, match="Did you mean 'depth'"):
        build("resnet", (1, 8, 8), 3, dept=8)
    with pytest.raises(BadInput, match="6n \\+ 2"):
        build("resnet", (1, 8, 8), 3, depth=9)


def test_resnet_20_has_the_parameters_of_the_paper():
    # 0.27 M (He et al., table 6); ours has two projections more than its option A
    network = build("resnet", (3, 32, 32), 10, depth=20)
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameter_count(network) - projections == 269_722


def test_padding_does_not_change_what_a_sentence_means():
    network = build("text-transformer", (12,), 3).eval()
    words = torch.tensor([[5, 9, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert torch.allclose(network(words), network(words[:, :3]), atol=1e-6)
    assert network(torch.zeros(2, 12, dtype=torch.int64)).isfinite().all()
    assert not torch.allclose(network(words), network(words.flip(1)[:, 9:]), atol=1e-3)


def test_an_lstm_reads_images_by_rows():
    network = build("lstm", (2, 9, 8), 3).eval()
    image = torch.randn(1, 2, 9, 8)
    rows = torch.stack([torch.cat([image[0, 0, r], image[0, 1, r]]) for r in range(9)])[None]
    expected = network.head(network.lstm(rows)[1][0][-1])
    assert torch.allclose(network(image), expected, atol=1e-6)


def test_the_list_of_names_imports_no_torch():
    code = "import sys; from netwright.models import names; names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
