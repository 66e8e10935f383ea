import numpy as np
import pytest
import torch
from torch import nn

from netwright.adapt.lst import LST, Rung, fisher
from netwright.adapt.lst.side_blocks import anatomy, blocks_of, cut, narrow_blank
from netwright.core.budget import Budget
from netwright.core.errors import NotApplicable
from netwright.core.fit import Fit
from netwright.core.measure.memory import training_memory
from netwright.core.metrics import evaluate
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.models import build

FAST = Fit(epochs=8, lr=1e-2, batch_size=32, weight_decay=0.0)


def task_of(classes=3, n=300, length=12):
    """The class is the most frequent of the first `classes` ids."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n)
    x = rng.integers(1, 20, (n, length))
    hot = rng.random((n, length)) < 0.5
    x[hot] = (np.repeat(y[:, None], length, 1) + 1)[hot]
    return Task.from_arrays(x, y, meaning="tokens")


def backbone(outputs=3, **config):
    torch.manual_seed(0)
    settings = {"vocabulary": 20, "width": 32, "depth": 3, "heads": 2, **config}
    return build("text-transformer", (12,), outputs, **settings).eval()


METHOD = LST(reduction=4, fisher_examples=16, fit=FAST)


def test_the_ladder_equals_its_formula_written_out():
    net, task = backbone(), task_of()
    ladder = METHOD.attach(net, task).eval()
    rungs = [m for m in ladder.modules() if isinstance(m, Rung)]
    with torch.no_grad():
        for i, rung in enumerate(rungs):
            rung.gate.fill_(0.03 * (i + 1))
    x = task.example(5)[0]
    hidden = [net.embed(x)]
    for block in net.blocks:
        hidden.append(block(hidden[-1]))
    s = rungs[0].enter(hidden[0])
    for rung, h in zip(rungs, hidden[1:], strict=True):
        g = 1 / (1 + torch.exp(-rung.gate / 0.1))
        s = rung.side(g * s + (1 - g) * rung.down(h))
    expected = net.head(net.norm(rungs[-1].up(s)).mean(1))
    torch.testing.assert_close(ladder(x), expected, atol=1e-5, rtol=1e-5)


def test_no_gradient_enters_the_backbone_and_only_the_ladder_learns():
    net, task = backbone(), task_of()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    ladder = METHOD(net, task, Budget())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    for rung, block in zip((m for m in ladder.modules() if isinstance(m, Rung)), net.blocks, strict=True):
        assert all(
            torch.equal(a, b)
            for a, b in zip(rung.block.state_dict().values(), block.state_dict().values(), strict=True)
        )
    trained = sum(p.numel() for p in ladder.parameters() if p.requires_grad)
    assert trained < 0.35 * sum(p.numel() for p in net.parameters())
    assert evaluate(ladder, task)["accuracy"] > evaluate(net, task)["accuracy"] + 0.2


def test_a_task_with_other_outputs_gets_a_new_head():
    task = task_of(classes=5)
    ladder = METHOD(backbone(outputs=3), task, Budget())
    assert ladder(task.example(2)[0]).shape == (2, 5)
    assert evaluate(ladder, task)["accuracy"] > 0.5


def test_the_rungs_hold_the_most_important_rows_chained_through_the_block():
    net, task = backbone(), task_of()
    ladder = METHOD.attach(net, task)
    rung = next(m for m in ladder.modules() if isinstance(m, Rung))
    importance = fisher(net, list(net.blocks), task, 16)[0]
    qkv = [importance[f"attention.{n}.weight"].sum(1) for n in ("query", "key", "value")]
    rows = (qkv[0] * qkv[1] * qkv[2]).topk(8).indices.sort().values
    start = sum(importance[f"attention.{n}.weight"].sum(0) for n in ("query", "key", "value"))
    columns = start.topk(8).indices.sort().values
    block, side = net.blocks[0], rung.side
    torch.testing.assert_close(side.attention.key.weight, block.attention.key.weight[rows][:, columns])
    out = importance["attention.out.weight"].sum(1).topk(8).indices.sort().values
    torch.testing.assert_close(side.attention.out.weight, block.attention.out.weight[out][:, rows])
    grow = importance["grow.weight"].sum(1).topk(16).indices.sort().values
    torch.testing.assert_close(side.grow.weight, block.grow.weight[grow][:, out])
    torch.testing.assert_close(side.norm2.weight, block.norm2.weight[out])


def test_query_key_and_value_are_cut_from_their_own_rows():
    block = backbone().blocks[1]
    for part in (block.attention.query, block.attention.key, block.attention.value):
        torch.nn.init.normal_(part.bias)
    importance = {name: torch.rand_like(p) for name, p in block.named_parameters()}
    side, columns = narrow_blank(block, 4), torch.tensor([0, 2, 3, 7, 11, 13, 30, 31])
    cut(block, side, importance, columns)
    names = ("query", "key", "value")
    rows = (
        torch.stack([importance[f"attention.{n}.weight"].sum(1) for n in names])
        .prod(0)
        .topk(8)
        .indices.sort()
        .values
    )
    for name in names:
        wide, narrow = getattr(block.attention, name), getattr(side.attention, name)
        torch.testing.assert_close(narrow.weight, wide.weight[rows][:, columns])
        torch.testing.assert_close(narrow.bias, wide.bias[rows])


def test_a_packed_attention_is_cut_from_the_rows_of_all_three():
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    nn.init.normal_(block.self_attn.in_proj_bias)
    importance = {name: torch.rand_like(p) for name, p in block.named_parameters()}
    side, columns = narrow_blank(block, 2), torch.tensor([1, 2, 4, 5, 8, 9, 14, 15])
    kept = cut(block, side, importance, columns)
    rows = importance["self_attn.in_proj_weight"].sum(1).view(3, 16).prod(0).topk(8).indices.sort().values
    for i in range(3):
        wide, narrow = slice(16 * i, 16 * (i + 1)), slice(8 * i, 8 * (i + 1))
        expected = block.self_attn.in_proj_weight[wide][rows][:, columns]
        torch.testing.assert_close(side.self_attn.in_proj_weight[narrow], expected)
        torch.testing.assert_close(
            side.self_attn.in_proj_bias[narrow], block.self_attn.in_proj_bias[wide][rows]
        )
    middle = importance["self_attn.out_proj.weight"].sum(1).topk(8).indices.sort().values
    out = block.self_attn.out_proj
    torch.testing.assert_close(side.self_attn.out_proj.weight, out.weight[middle][:, rows])
    torch.testing.assert_close(kept, importance["linear2.weight"].sum(1).topk(8).indices.sort().values)
    # the norms come after the sums, so they have the widths of the attention's and of the block's output
    torch.testing.assert_close(side.norm1.weight, block.norm1.weight[middle])
    torch.testing.assert_close(side.norm2.weight, block.norm2.weight[kept])


def test_the_frozen_network_keeps_its_evaluation_mode_while_the_ladder_learns():
    task = task_of()
    ladder = METHOD.attach(backbone(dropout=0.5), task).train()
    rungs = [m for m in ladder.modules() if isinstance(m, Rung)]
    learning = {
        m
        for r in rungs
        for part in (r.side, r.enter, r.down, r.up)
        if part is not None
        for m in part.modules()
    }
    assert ladder.training
    assert all(m.training for m in learning)
    assert not any(m.training for m in ladder.backbone.modules() if m not in learning)
    x = task.example(4)[0]
    torch.testing.assert_close(
        rungs[0].block(ladder.backbone.embed(x)), rungs[0].block(ladder.backbone.embed(x))
    )
    assert not torch.equal(ladder(x), ladder(x))  # the ladder's own dropout
    assert not any(m.training for m in ladder.eval().modules())


def test_fisher_is_the_sum_of_squared_gradients_of_single_examples():
    net, task = backbone(), task_of()
    ours = fisher(net, list(net.blocks), task, 3)[1]["grow.weight"]
    expected = torch.zeros_like(ours)
    chosen = next(take(task.train, 3, seed=0).batches(3))
    for x, y in zip(*chosen, strict=True):
        net.zero_grad()
        task.loss(net(x[None]), y[None]).backward()
        expected += net.blocks[1].grow.weight.grad ** 2
    torch.testing.assert_close(ours, expected)


def test_a_step_saves_far_less_than_full_training():
    task = task_of()
    net = backbone(width=64, depth=4, heads=2)
    ladder = LST(reduction=8, fisher_examples=4).attach(net, task).train()
    x, y = next(task.train.batches(64))
    step = lambda n: lambda: task.loss(n(x), y).backward()
    full = training_memory(step(net.train()), net).saved
    assert training_memory(step(ladder), ladder).saved < 0.5 * full


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_s_encoder_layer_is_served(norm_first):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 16)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
                for _ in range(2)
            )
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            x = self.embed(x)
            for block in self.layers:
                x = block(x)
            return self.head(x.mean(1))

    task = task_of()
    ladder = LST(reduction=2, fisher_examples=8, fit=FAST)(Net().eval(), task, Budget())
    assert evaluate(ladder, task)["accuracy"] > 0.6


def test_bert_s_layer_is_served():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert, self.head = transformers.BertModel(config, add_pooling_layer=False), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.bert(x).last_hidden_state.mean(1))

    task = task_of()
    ladder = LST(reduction=2, fisher_examples=8, fit=FAST)(Classifier().eval(), task, Budget())
    assert evaluate(ladder, task)["accuracy"] > 0.6


def test_what_it_cannot_serve():
    with pytest.raises(NotApplicable, match="no list"):
        LST()(nn.Sequential(nn.Linear(12, 3)), task_of(), Budget())
    with pytest.raises(NotApplicable, match="heads"):
        LST(reduction=32)(backbone(), task_of(), Budget())
    with pytest.raises(NotApplicable, match="known are"):
        anatomy(nn.Linear(1, 1))
    with pytest.raises(NotApplicable, match="last one stays"):
        LST(reduction=4, drop=(2,))(backbone(), task_of(), Budget())


def test_dropped_blocks_have_no_rung():
    ladder = LST(reduction=4, drop=(0,), fisher_examples=4).attach(backbone(), task_of())
    assert [m.side is None for m in ladder.modules() if isinstance(m, Rung)] == [True, False, False]
    assert ladder(task_of().example(2)[0]).shape == (2, 3)


def test_blocks_are_found_and_narrowed():
    name, blocks = blocks_of(backbone())
    assert (name, len(blocks)) == ("blocks", 3)
    side = narrow_blank(blocks[0], 4)
    assert (side.grow.in_features, side.grow.out_features, side.attention.heads) == (8, 16, 2)


def test_new_weights_put_the_gates_back_to_one_half():
    ladder = METHOD.attach(backbone(), task_of())
    gates = lambda net: [m.gate.item() for m in net.modules() if isinstance(m, Rung)]
    with torch.no_grad():
        for rung in (m for m in ladder.modules() if isinstance(m, Rung)):
            rung.gate.fill_(0.3)
    assert gates(reinitialised(ladder, 0)) == [0.0] * 3


def test_any_block_but_the_last_can_be_dropped():
    ladder = LST(reduction=4, drop=(0, 1), fisher_examples=4).attach(backbone(), task_of())
    assert [m.side is None for m in ladder.modules() if isinstance(m, Rung)] == [True, True, False]


def test_a_stranger_with_an_attention_is_no_known_block():
    stranger = nn.Module()
    stranger.attention = nn.Linear(2, 2)
    with pytest.raises(NotApplicable, match="known are"):
        anatomy(stranger)


def test_of_two_lists_of_blocks_the_first_is_tapped():
    layer = lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    network = nn.ModuleDict({name: nn.ModuleList([layer(), layer()]) for name in ("reads", "writes")})
    assert blocks_of(network)[0] == "reads"
