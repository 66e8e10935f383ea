from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from netwright.core.errors import BadInput
from netwright.core.split import ArraySplit, LoaderSplit, Normalise, first, take
from netwright.core.task import Task


def arrays(n=100, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)).astype(np.float32), rng.integers(0, classes, n)


def test_splits_are_disjoint_complete_stratified_and_seeded():
    y = np.repeat(np.arange(4), [400, 200, 100, 100])
    x = np.arange(800, dtype=np.float32)[:, None]
    task = Task.from_arrays(x, y, seed=3)
    parts = [task.train.inputs[0][:, 0], task.val.inputs[0][:, 0], task.test.inputs[0][:, 0]]
    assert sorted(torch.cat(parts).tolist()) == list(range(800))
    for split in (task.val, task.test):
        assert torch.bincount(split.targets).tolist() == [60, 30, 15, 15]
    again = Task.from_arrays(x, y, seed=3)
    assert torch.equal(again.val.inputs[0], task.val.inputs[0])
    assert not torch.equal(Task.from_arrays(x, y, seed=4).val.inputs[0], task.val.inputs[0])


def test_given_splits_are_kept_as_they_are():
    x, y = arrays()
    task = Task.from_arrays(x, y, val=arrays(30, seed=1), test=arrays(20, seed=2))
    assert (len(task.train), len(task.val), len(task.test)) == (100, 30, 20)


@pytest.mark.parametrize(
    ("y", "kind", "outputs"),
    [
        (np.array([0, 1] * 20), "classification", 2),
        (np.linspace(0, 1, 40), "regression", 1),
        (np.tile([[0, 1, 1], [1, 0, 0]], (20, 1)), "multilabel", 3),
        (np.array([[0], [1]] * 20), "classification", 2),
    ],
)
def test_the_kind_is_read_from_the_targets(y, kind, outputs):
    task = Task.from_arrays(np.zeros((40, 3), np.float32), y)
    assert (task.kind, task.outputs) == (kind, outputs)


def broken(x=None, y=None, **options):
    good_x, good_y = arrays()
    return lambda: Task.from_arrays(good_x if x is None else x, good_y if y is None else y, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken(x=np.full((100, 5), np.nan, np.float32)), "NaN or Inf in 100 of 100"),
        (broken(x=np.full((100, 5), np.inf, np.float32)), "NaN or Inf"),
        (broken(y=np.full(100, np.nan)), "NaN or Inf"),
        (broken(y=np.zeros(100, int)), "one class only"),
        (broken(y=np.arange(100) - 1), "out of range"),
        (broken(val=(np.zeros((3, 5), np.float32), np.array([0, 1, 9]))), "out of range: 9 in val"),
        (broken(x=np.zeros((7, 5), np.float32)), "different lengths"),
        (broken(x=np.array([["a"]] * 100)), "not numbers"),
        (broken(test=(np.zeros((0, 5), np.float32), np.zeros(0, int))), "test split is empty"),
        (broken(x=np.zeros(100, np.float32)), "at least 2"),
    ],
)
def test_bad_data_is_one_clear_error(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_normalisation_is_applied_to_batches_and_can_be_left_out():
    x = np.random.default_rng(0).integers(0, 256, (60, 3, 4, 4)).astype(np.uint8)
    norm = Normalise([0.5, 0.4, 0.3], [0.2, 0.2, 0.2], scale=1 / 255)
    task = Task.from_arrays(x, np.arange(60) % 2, normalise=norm, seed=0)
    raw = task.val.inputs[0][:1].double().numpy()
    expected = (raw / 255 - np.array([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1)) / 0.2
    np.testing.assert_allclose(task.example()[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(task.raw().example()[0].numpy(), raw, atol=1e-6)
    scaled = task.fed(Normalise([0.0], [1.0], scale=1 / 255))
    np.testing.assert_allclose(scaled.example()[0].numpy(), raw / 255, atol=1e-6)
    torch.testing.assert_close(norm(task.raw().example(5)[0]), task.example(5)[0])
    assert task.raw().normalise is None
    assert task.meaning == "image"


def test_a_file_may_take_another_layout_and_order_of_channels():
    """What the file's front makes of the raw data is what the task feeds."""
    x = np.random.default_rng(0).integers(0, 256, (60, 3, 4, 5)).astype(np.uint8)
    norm = Normalise([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], scale=1 / 255, channels=(2, 1, 0))
    task = replace(Task.from_arrays(x, np.arange(60) % 2, normalise=norm), axes=(0, 2, 3, 1))
    picture = task.val.inputs[0][0].double().numpy()
    blue = (picture[2] / 255 - 0.5) / 0.2
    np.testing.assert_allclose(task.example()[0][0, 0].numpy(), blue, atol=1e-5)
    raw = task.raw().example(4)[0]
    assert raw.shape == (4, 4, 5, 3)
    np.testing.assert_allclose(raw[0].numpy(), picture.transpose(1, 2, 0))
    torch.testing.assert_close(task.front(raw), task.example(4)[0])
    assert task.signature.inputs[0].shape == (4, 5, 3)
    assert task.signature.normalise["channels"] == [2, 1, 0]


def test_fingerprint_tells_tasks_apart():
    x, y = arrays()
    same = Task.from_arrays(x, y).fingerprint()
    assert Task.from_arrays(x, y).fingerprint() == same
    assert Task.from_arrays(x + 1, y).fingerprint() != same
    given = {role: (x[:20], y[:20].copy()) for role in ("val", "test")}
    same = Task.from_arrays(x, y, **given).fingerprint()
    for labels in (y := y.copy(), given["test"][1]):
        labels[-1] = (labels[-1] + 1) % 4
        other = Task.from_arrays(x, y, **given).fingerprint()
        assert other != same, "one late label was corrected"
        same = other
    x = x.copy()
    x[-1] += 1
    assert Task.from_arrays(x, y, **given).fingerprint() != same


@pytest.mark.parametrize("role", ["val", "test"])
def test_one_of_val_and_test_is_halved_by_class_and_train_stays(role):
    x = np.arange(100, dtype=np.float32)[:, None]
    y = np.repeat(np.arange(4), [40, 31, 20, 9])
    task = Task.from_arrays(x, y, **{role: (x + 1000, y)}, seed=1)
    assert (task.division, task.unseen) == ("halved", True)
    assert task.train.inputs[0][:, 0].tolist() == list(range(100))
    halves = [task.val, task.test]
    assert sorted(torch.cat([s.inputs[0][:, 0] for s in halves]).tolist()) == list(range(1000, 1100))
    counts = torch.stack([torch.bincount(s.targets, minlength=4) for s in halves])
    assert (counts[0] - counts[1]).abs().max() <= 1
    assert abs(len(task.val) - len(task.test)) <= 1
    assert Task.from_arrays(x, y).division == "ours"
    assert Task.from_arrays(x, y, val=(x, y), test=(x, y)).division == "given"


def test_a_few_rows_of_many_classes_are_halved_too():
    x, y = np.zeros((7, 2), np.float32), np.arange(7)
    task = Task.from_arrays(x, y, test=(x, y))
    assert {len(task.val), len(task.test)} == {3, 4}


def loaders(n=50, batch=8):
    x, y = arrays(n)
    data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return DataLoader(data, batch_size=batch, shuffle=True), DataLoader(data, batch_size=batch)


def test_loaders_become_a_task():
    train, plain = loaders()
    task = Task.from_loaders(train, plain, plain, classes=["a", "b", "c", "d"])
    assert (task.outputs, task.input_shape, len(task.train)) == (4, (5,), 50)
    assert Task.from_loaders(train, plain, plain).outputs == 4


def test_loaders_that_are_missing_come_from_the_one_that_is_given():
    train, _ = loaders()
    x, y = arrays(40, seed=5)
    fresh = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8)
    for given in ({"val": fresh}, {"test": fresh}):
        task = Task.from_loaders(train, **given)
        assert (task.division, len(task.train)) == ("halved", 50)
        seen = torch.cat([b for s in (task.val, task.test) for b, _ in s.batches(64)])
        assert sorted(seen.tolist()) == sorted(x.tolist())
        counts = [torch.bincount(next(s.batches(64))[1], minlength=4) for s in (task.val, task.test)]
        assert (counts[0] - counts[1]).abs().max() <= 1
    task = Task.from_loaders(train)
    assert task.division == "ours"
    parts = [torch.cat([b for b, _ in s.batches(64)]) for s in (task.train, task.val, task.test)]
    assert sorted(torch.cat(parts).tolist()) == sorted(train.dataset.tensors[0].tolist())
    assert len(parts[1]) == len(parts[2]) > 5


def test_a_stream_cannot_be_divided():
    class Stream(IterableDataset):
        def __len__(self):
            return 8

        def __iter__(self):
            return iter([(torch.zeros(2), 0)] * 8)

    with pytest.raises(BadInput, match="give val and test too"):
        Task.from_loaders(DataLoader(Stream(), batch_size=4))


def test_a_loader_shuffles_by_seed_and_selects_by_index():
    train, plain = loaders()
    split = LoaderSplit(train)
    order = lambda seed: torch.cat([x for x, _ in split.batches(8, shuffle=True, seed=seed)])
    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))
    chosen = LoaderSplit(plain).select(torch.tensor([3, 1]))
    assert torch.equal(first(chosen, 2)[0], plain.dataset.tensors[0][[3, 1]])


def test_a_sampler_that_picks_examples_makes_the_split_those():
    """The usual way to split one data set by samplers must not hand all of it to every split."""
    _, plain = loaders()
    parts = (range(30), range(30, 40), range(40, 50))
    picked = [DataLoader(plain.dataset, batch_size=8, sampler=SubsetRandomSampler(part)) for part in parts]
    task = Task.from_loaders(*picked)
    x = plain.dataset.tensors[0]
    for split, part in zip((task.train, task.val, task.test), parts, strict=True):
        for shuffle in (False, True):
            seen = torch.cat([b for b, _ in split.batches(16, shuffle=shuffle)])
            assert len(split) == len(seen) == len(part)
            torch.testing.assert_close(seen.sort(0).values, x[list(part)].sort(0).values)


def test_a_rule_of_batches_or_a_sampler_of_unknown_reach_is_refused():
    _, plain = loaders()
    own = DataLoader(plain.dataset, batch_sampler=[[0, 1], [2]])
    half = DataLoader(plain.dataset, batch_size=8, sampler=range(25))
    for loader, words in ((own, "a rule of its own"), (half, "may leave examples out")):
        with pytest.raises(BadInput, match=words):
            LoaderSplit(loader)


def test_array_split_batches_cover_everything_once():
    split = ArraySplit((torch.arange(10.0)[:, None],), torch.arange(10))
    seen = [int(v) for x, _ in split.batches(4, shuffle=True, seed=0) for v in x]
    assert sorted(seen) == list(range(10))
    assert len(take(split, 3)) == 3
    assert take(split, 3, seed=1).targets.tolist() == take(split, 3, seed=1).targets.tolist()
