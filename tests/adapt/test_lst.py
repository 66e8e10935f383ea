import copy

import numpy as np
import pytest
import torch
from torch import nn

from netwright.adapt.lst import LST, Rung, fisher
from netwright.adapt.lst.side_blocks import narrow, steps_of
from netwright.adapt.lst.stack import Call, first, stack_of
from netwright.core.budget import Budget, Meter
from netwright.core.errors import NotApplicable
from netwright.core.fit import Fit
from netwright.core.measure.memory import training_memory
from netwright.core.metrics import evaluate
from netwright.core.split import take
from netwright.core.task import Task
from netwright.core.weights.initialise import reinitialised
from netwright.models import build
from netwright.models.parts.transformer import Block

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


def kept(importances, columns, count):
    """The rows with the largest product of importances over the columns that are kept, written out."""
    product = torch.ones(importances[0][:, columns].shape, dtype=torch.float64)
    for importance in importances:
        product *= importance[:, columns].double()
    return torch.tensor(sorted(product.sum(1).argsort(descending=True)[:count].tolist()))


def test_the_chain_begins_at_the_embedding_and_goes_through_every_block():
    net, task = backbone(), task_of()
    ladder = METHOD.attach(net, task)
    rungs = [m for m in ladder.modules() if isinstance(m, Rung)]
    importance, entry = fisher(net, stack_of(net, task.example(2)), task, 16)
    columns = entry.topk(8).indices.sort().values
    for block, rung, found in zip(net.blocks, rungs, importance, strict=True):
        side = rung.side
        rows = kept([found[f"attention.{n}.weight"] for n in ("query", "key", "value")], columns, 8)
        for name in ("query", "key", "value"):
            wide, thin = getattr(block.attention, name), getattr(side.attention, name)
            torch.testing.assert_close(thin.weight, wide.weight[rows][:, columns])
            torch.testing.assert_close(thin.bias, wide.bias[rows])
        torch.testing.assert_close(side.norm1.weight, block.norm1.weight[columns])
        out = kept([found["attention.out.weight"]], rows, 8)
        torch.testing.assert_close(side.attention.out.weight, block.attention.out.weight[out][:, rows])
        torch.testing.assert_close(side.norm2.bias, block.norm2.bias[out])
        grow = kept([found["grow.weight"]], out, 16)
        torch.testing.assert_close(side.grow.weight, block.grow.weight[grow][:, out])
        columns = kept([found["shrink.weight"]], grow, 8)
        torch.testing.assert_close(side.shrink.weight, block.shrink.weight[columns][:, grow])
        torch.testing.assert_close(side.shrink.bias, block.shrink.bias[columns])


def test_the_embedding_s_importance_is_summed_over_its_rows():
    net, task = backbone(), task_of()
    stack = stack_of(net, task.example(2))
    assert stack.embedding == ("embed.token.weight", 1)
    expected = torch.zeros(32)
    for x, y in zip(*next(take(task.train, 4, seed=0).batches(4)), strict=True):
        net.zero_grad()
        task.loss(net(x[None]), y[None]).backward()
        expected += (net.embed.token.weight.grad**2).sum(0)
    torch.testing.assert_close(fisher(net, stack, task, 4)[1], expected)


def test_patches_are_an_embedding_too_and_without_one_the_first_readers_count():
    vit = build("vit", (1, 8, 8), 3).eval()
    images = Task.from_arrays(
        np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32), np.arange(40) % 3
    )
    stack = stack_of(vit, images.example(2))
    name, axis = stack.embedding
    assert vit.get_parameter(name).shape[axis] == stack.width

    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = backbone().blocks
            self.head = nn.Linear(32, 3)

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    states = Task.from_arrays(
        np.random.default_rng(0).random((40, 5, 32), dtype=np.float32), np.arange(40) % 3
    )
    net = Bare().eval()
    stack = stack_of(net, states.example(2))
    assert stack.embedding is None
    importance, entry = fisher(net, stack, states, 3)
    readers = [
        importance[0][f"{n}.weight"] for n in ("attention.query", "attention.key", "attention.value", "grow")
    ]
    torch.testing.assert_close(
        entry, sum(r.sum(0) for r in [*readers, importance[0]["attention.out.weight"]])
    )


def wide_call(block, **more):
    """What a stack of one block is called with: states of width 32."""
    torch.manual_seed(3)
    made = []
    handle = block.register_forward_hook(lambda m, a, k, o: made.append(Call(a, k, o)), with_kwargs=True)
    with torch.no_grad():
        block.eval()(torch.randn(2, 5, 32), **more)
    handle.remove()
    return made[0]


def test_a_packed_attention_is_cut_from_the_rows_of_all_three():
    block = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    nn.init.normal_(block.self_attn.in_proj_bias)
    importance = {name: torch.rand_like(p) for name, p in block.named_parameters()}
    columns = torch.tensor([1, 2, 4, 5, 8, 9, 14, 15, 17, 18, 20, 21, 24, 25, 30, 31])
    side, end = narrow(block, wide_call(block), 2, importance, columns)
    rows = kept(list(importance["self_attn.in_proj_weight"].view(3, 32, 32)), columns, 16)
    for i in range(3):
        wide, thin = slice(32 * i, 32 * (i + 1)), slice(16 * i, 16 * (i + 1))
        expected = block.self_attn.in_proj_weight[wide][rows][:, columns]
        torch.testing.assert_close(side.self_attn.in_proj_weight[thin], expected)
        torch.testing.assert_close(
            side.self_attn.in_proj_bias[thin], block.self_attn.in_proj_bias[wide][rows]
        )
    middle = kept([importance["self_attn.out_proj.weight"]], rows, 16)
    out = block.self_attn.out_proj
    torch.testing.assert_close(side.self_attn.out_proj.weight, out.weight[middle][:, rows])
    # the norms come after the sums, so they have the widths of the attention's and of the block's output
    torch.testing.assert_close(side.norm1.weight, block.norm1.weight[middle])
    hidden = kept([importance["linear1.weight"]], middle, 32)
    torch.testing.assert_close(end, kept([importance["linear2.weight"]], hidden, 16))
    torch.testing.assert_close(side.norm2.weight, block.norm2.weight[end])


def bert(hidden, inner):
    from transformers.models.bert.modeling_bert import BertConfig, BertLayer

    return BertLayer(
        BertConfig(
            hidden_size=hidden, intermediate_size=inner, num_attention_heads=2, attn_implementation="eager"
        )
    )


def t5(hidden, inner):
    from transformers.models.t5.modeling_t5 import T5Block, T5Config

    config = T5Config(
        d_model=hidden, d_ff=inner, d_kv=hidden // 2, num_heads=2, feed_forward_proj="gated-gelu",
        attn_implementation="eager",
    )  # fmt: skip
    return T5Block(config, has_relative_attention_bias=True)


def gpt2(hidden, inner):
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block, GPT2Config

    return GPT2Block(
        GPT2Config(n_embd=hidden, n_inner=inner, n_head=2, attn_implementation="eager"), layer_idx=0
    )


def llama(hidden, inner):
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaDecoderLayer

    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_attention_heads=hidden // 4, num_key_value_heads=hidden // 8,
        head_dim=4, attn_implementation="eager",
    )  # fmt: skip
    return LlamaDecoderLayer(config, layer_idx=0)


def own(hidden, inner):
    return Block(hidden, 2, inner)


def torch_s(hidden, inner):
    return nn.TransformerEncoderLayer(hidden, 2, inner, batch_first=True, activation="gelu", norm_first=True)


@pytest.mark.parametrize("kind", [own, torch_s, bert, t5, gpt2, llama])
def test_a_narrow_copy_computes_what_the_class_at_that_width_computes(kind):
    """Heads become narrower; llama's, whose rotary positions know the width of a head, fewer."""
    if kind in (bert, t5, gpt2, llama):
        pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    block, more = kind(32, 64).eval(), {}
    if kind is llama:
        angles = torch.rand(1, 5, 4)
        more = {"position_embeddings": (angles.cos(), angles.sin())}
    importance = {name: torch.rand_like(p) for name, p in block.named_parameters()}
    side, _ = narrow(block, wide_call(block, **more), 4, importance, torch.arange(8))
    reference = kind(8, 16).eval()
    reference.load_state_dict(side.state_dict())
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        torch.testing.assert_close(first(side(x, **more)), first(reference(x, **more)))
    assert all(p.requires_grad for p in side.parameters())


def test_matrices_that_read_one_tensor_make_one_step():
    block = backbone().blocks[0]
    steps = steps_of(block, wide_call(block))
    names = [step if isinstance(step, str) else [m.weight for m in step] for step in steps]
    assert names == [
        "norm1", [f"attention.{n}.weight" for n in ("query", "key", "value")], ["attention.out.weight"],
        "norm2", ["grow.weight"], ["shrink.weight"],
    ]  # fmt: skip


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
    ours = fisher(net, stack_of(net, task.example(2)), task, 3)[0][1]["grow.weight"]
    expected = torch.zeros_like(ours)
    chosen = next(take(task.train, 3, seed=0).batches(3))
    for x, y in zip(*chosen, strict=True):
        net.zero_grad()
        task.loss(net(x[None]), y[None]).backward()
        expected += net.blocks[1].grow.weight.grad ** 2
    torch.testing.assert_close(ours, expected)


def test_the_rate_rises_for_so_many_steps_but_no_longer_than_half_of_them():
    fit = LST(fit=Fit(epochs=20, batch_size=100)).schedule(10_000)
    assert (fit.warmup, fit.epochs) == (5.0, 20)
    assert LST(fit=Fit(epochs=20, batch_size=100), warmup=30).schedule(950).warmup == 3.0
    assert LST(fit=Fit(epochs=4, batch_size=100)).schedule(1000).warmup == 2.0
    assert LST(seed=7).schedule(1000).seed == 7


def test_a_step_saves_far_less_than_full_training():
    task = task_of()
    net = backbone(width=64, depth=4, heads=2)
    ladder = LST(reduction=8, fisher_examples=4).attach(net, task).train()
    x, y = next(task.train.batches(64))
    step = lambda n: lambda: task.loss(n(x), y).backward()
    full = training_memory(step(net.train()), net).saved
    assert training_memory(step(ladder), ladder).saved < 0.5 * full


def test_of_wide_tensors_only_what_the_ladder_reads_is_kept():
    """The hidden state that each D reads, and what U and the head make of the last rung; no joined copies of them."""
    task, net = task_of(), backbone(width=64, depth=5, heads=2)
    ladder = LST(reduction=8, fisher_examples=4).attach(net, task).train()
    x, y = next(task.train.batches(32))
    weights = {t.untyped_storage().data_ptr() for t in (*ladder.parameters(), *ladder.buffers())}
    wide = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.nbytes() >= 32 * 12 * 64 * 4 and storage.data_ptr() not in weights:
            wide[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = task.loss(ladder(x), y)
    assert len(wide) <= 6 + 3
    loss.backward()


class Around(nn.Module):
    """A body of Hugging Face's with a head on the mean of its states."""

    def __init__(self, body, width=16):
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.body(input_ids=x).last_hidden_state.mean(1))


class Torch(nn.Module):
    def __init__(self, norm_first):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x)).mean(1))


def bodies():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    small = {"vocab_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, pad_token_id=None, bos_token_id=1, eos_token_id=2, **small
    )
    bert = transformers.BertConfig(hidden_size=16, intermediate_size=32, **small)
    t5 = transformers.T5Config(vocab_size=20, d_model=16, d_ff=32, d_kv=8, num_heads=2, num_layers=2)
    gpt = transformers.GPT2Config(
        vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2
    )
    return {
        "bert": lambda: Around(transformers.BertModel(bert, add_pooling_layer=False)),
        "t5": lambda: Around(transformers.T5EncoderModel(t5)),
        "gpt2": lambda: Around(transformers.GPT2Model(gpt)),
        "llama": lambda: Around(transformers.LlamaModel(llama)),
    }


@pytest.mark.parametrize("kind", ["torch", "torch, norm first", "bert", "t5", "gpt2", "llama"])
def test_stacks_are_found_by_what_they_do(kind):
    torch.manual_seed(0)
    net = Torch(kind != "torch") if kind.startswith("torch") else bodies()[kind]()
    task = task_of()
    ladder = LST(reduction=2, fisher_examples=8, fit=FAST, warmup=5)(net.eval(), task, Budget())
    assert sum(isinstance(m, Rung) for m in ladder.modules()) == 2
    assert evaluate(ladder, task)["accuracy"] > 0.6


def test_what_it_cannot_serve():
    with pytest.raises(NotApplicable, match="no list"):
        LST()(nn.Sequential(nn.Linear(12, 3)), task_of(), Budget())
    with pytest.raises(NotApplicable, match="heads"):
        LST(reduction=32)(backbone(), task_of(), Budget())
    with pytest.raises(NotApplicable, match="narrower"):
        LST(reduction=5)(backbone(), task_of(), Budget())
    with pytest.raises(NotApplicable, match="last one stays"):
        LST(reduction=4, drop=(2,))(backbone(), task_of(), Budget())


def test_an_encoder_and_decoder_are_refused():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.T5Config(
        vocab_size=20, d_model=16, d_ff=32, d_kv=8, num_heads=2, num_layers=2, decoder_start_token_id=0
    )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = transformers.T5Model(config), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.body(input_ids=x, decoder_input_ids=x).last_hidden_state.mean(1))

    with pytest.raises(NotApplicable, match="another stack"):
        LST(reduction=2)(Net().eval(), task_of(), Budget())


def test_blocks_that_do_not_feed_one_another_are_no_stack():
    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 32)
            self.blocks = backbone().blocks
            self.head = nn.Linear(32, 3)

        def forward(self, x):
            x = self.embed(x)
            return self.head(sum(block(x) for block in self.blocks).mean(1))

    with pytest.raises(NotApplicable, match="no list"):
        stack_of(Parallel().eval(), task_of().example(2))


def test_a_part_without_a_rule_is_named():
    class Convolving(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Conv1d(32, 32, 3, padding=1)

        def forward(self, x):
            return x + self.mix(x.transpose(1, 2)).transpose(1, 2)

    block = Convolving()
    with pytest.raises(NotApplicable, match="Conv1d"):
        steps_of(block, wide_call(block))


def test_dropped_blocks_have_no_rung():
    ladder = LST(reduction=4, drop=(0,), fisher_examples=4).attach(backbone(), task_of())
    assert [m.side is None for m in ladder.modules() if isinstance(m, Rung)] == [True, False, False]
    assert ladder(task_of().example(2)[0]).shape == (2, 3)


def test_the_longest_chain_is_taken():
    net = backbone()
    stack = stack_of(net, task_of().example(2))
    assert (stack.name, len(stack.blocks), stack.width) == ("blocks", 3, 32)
    assert [c.hidden.shape for c in stack.calls] == [(2, 12, 32)] * 3


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


class Twice(nn.Module):
    """Two stacks, one on top of the other; of like length the first is tapped, else the longer one."""

    def __init__(self, below, above):
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.below, self.above = (nn.ModuleList(own(32, 64) for _ in range(n)) for n in (below, above))
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = self.embed(x)
        for block in (*self.below, *self.above):
            x = block(x)
        return self.head(x.mean(1))


@pytest.mark.parametrize(("below", "above", "found"), [(2, 2, "below"), (2, 3, "above")])
def test_of_two_stacks_the_longer_or_the_first_is_tapped(below, above, found):
    assert stack_of(Twice(below, above).eval(), task_of().example(2)).name == found


def test_a_rung_answers_for_its_block_and_is_copied_as_itself():
    rung = Rung(own(32, 64), None, 32, 8, 0.1, True, False)
    rung.block.kind = "full"
    assert rung.kind == "full"
    rung.block.__deepcopy__ = lambda memo: None
    assert isinstance(copy.deepcopy(rung), Rung)
    with pytest.raises(AttributeError, match="colour"):
        _ = rung.colour


def test_importance_and_training_share_the_budget(monkeypatch):
    """Of 100 samples, 16 go to the importance and the rest to two batches and the one that ends it."""
    seen = []
    spend = Meter.spend
    monkeypatch.setattr(
        Meter,
        "spend",
        lambda self, samples=0, epochs=0.0: (seen.append(samples), spend(self, samples, epochs)),
    )
    LST(reduction=4, fisher_examples=16, fit=FAST)(backbone(), task_of(), Budget(samples=100))
    assert seen == [16, 32, 32, 32]


def test_the_side_state_is_what_stands_behind_the_hidden_state():
    """One rung in the middle of a ladder, its state 8 columns of their own values."""
    torch.manual_seed(0)
    block, side = own(32, 64).eval(), own(8, 16).eval()
    rung = Rung(block, side, 32, 8, 0.1, False, False)
    x, state = torch.randn(2, 5, 32), torch.randn(2, 5, 8)
    with torch.no_grad():
        rung.gate.fill_(0.05)
        made = rung(torch.cat([x, state], -1))
        g, hidden = torch.sigmoid(torch.tensor(0.5)), block(x)
        expected = torch.cat([hidden, side(g * state + (1 - g) * rung.down(hidden))], -1)
    torch.testing.assert_close(made, expected)
