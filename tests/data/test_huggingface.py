"""Folders that Hugging Face `datasets` saved."""

from __future__ import annotations

import numpy as np
import pytest

datasets = pytest.importorskip("datasets", reason="needs netwright[huggingface]")

from PIL import Image  # noqa: E402

from netwright.core.errors import BadInput  # noqa: E402
from netwright.data import task  # noqa: E402
from netwright.data.huggingface import _bytes  # noqa: E402

ROWS = 40


def test_numeric_columns_and_given_splits(tmp_path):
    rng = np.random.default_rng(0)
    part = lambda n: datasets.Dataset.from_dict(
        {"a": rng.normal(size=n), "b": list(range(n)), "label": [i % 2 for i in range(n)]}
    )
    datasets.DatasetDict(train=part(ROWS), validation=part(8), test=part(6)).save_to_disk(tmp_path / "d")
    held = task(tmp_path / "d")
    assert [len(s) for s in (held.train, held.val, held.test)] == [40, 8, 6]
    assert held.input_shape == (2,)
    assert held.train.inputs[0][:, 1].tolist() == list(range(ROWS))


def test_unseen_rows_judge_and_all_others_are_for_training(tmp_path):
    part = lambda n: datasets.Dataset.from_dict(
        {"a": [float(i) for i in range(n)], "label": [i % 2 for i in range(n)]}
    )
    part(ROWS).save_to_disk(tmp_path / "d")
    datasets.DatasetDict(train=part(9), test=part(12)).save_to_disk(tmp_path / "fresh")
    held = task(tmp_path / "d", unseen=tmp_path / "fresh")
    assert [len(s) for s in (held.train, held.val, held.test)] == [ROWS, 6, 6]
    assert held.division == "halved"
    part(4).rename_column("a", "b").save_to_disk(tmp_path / "other")
    with pytest.raises(BadInput, match="has no column 'a'"):
        task(tmp_path / "d", unseen=tmp_path / "other")


def test_unseen_pictures_have_the_classes_of_the_first(tmp_path):
    part = lambda labels: datasets.Dataset.from_dict(
        {"image": [Image.new("RGB", (8, 8), (40 * len(n), 0, 0)) for n in labels], "label": labels},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    part(["ape", "zebra"] * 10).save_to_disk(tmp_path / "d")
    part(["zebra"] * 4).save_to_disk(tmp_path / "fresh")
    held = task(tmp_path / "d", unseen=tmp_path / "fresh")
    assert (len(held.train), held.val.targets.tolist()) == (20, [1, 1])


def test_vectors_keep_their_shape_and_classes_their_names(tmp_path):
    x = np.random.default_rng(0).normal(size=(ROWS, 3, 4)).astype(np.float32)
    features = datasets.Features(
        {"x": datasets.Array2D((3, 4), "float32"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    held = datasets.Dataset.from_dict({"x": x, "label": [i % 2 for i in range(ROWS)]}, features=features)
    held.save_to_disk(tmp_path / "d")
    made = task(tmp_path / "d")
    assert made.input_shape == (3, 4)
    assert made.classes == ("no", "yes")


@pytest.mark.parametrize("labels", ["class label", "text", "number"])
def test_pictures_keep_the_order_of_their_labels(tmp_path, labels):
    images = [Image.new("RGB", (8, 8), (40 * (i % 3), 0, 0)) for i in range(ROWS)]
    names = ["zebra", "ape", "newt"]
    kind = {"class label": datasets.ClassLabel(names=names), "text": datasets.Value("string")}.get(
        labels, datasets.Value("int64")
    )
    values = [names[i % 3] if labels == "text" else i % 3 for i in range(ROWS)]
    held = datasets.Dataset.from_dict(
        {"image": images, "label": values},
        features=datasets.Features({"image": datasets.Image(), "label": kind}),
    )
    held.save_to_disk(tmp_path / "d")
    made = task(tmp_path / "d", size=8)
    expected = {
        "class label": ("zebra", "ape", "newt"), "text": ("ape", "newt", "zebra"), "number": ("0", "1", "2"),
    }[labels]  # fmt: skip
    assert made.classes == expected
    colour = {"zebra": 0, "ape": 40, "newt": 80, "0": 0, "1": 40, "2": 80}
    x, y = next(made.train.batches(100))
    red = (x[:, 0, 0, 0] * made.normalise.std[0] + made.normalise.mean[0]) * 255
    assert red.round().tolist() == [colour[made.classes[c]] for c in y]


def test_faults_are_one_line(tmp_path):
    whole = datasets.Dataset.from_dict({"text": ["a", "b"] * 10, "label": [0, 1] * 10})
    whole.save_to_disk(tmp_path / "text")
    with pytest.raises(BadInput, match=r"column 'text' holds .* tokenise it"):
        task(tmp_path / "text")
    with pytest.raises(BadInput, match="Did you mean 'label'"):
        task(tmp_path / "text", target="labl")
    for file in (tmp_path / "text").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(BadInput, match="no complete Hugging Face folder") as error:
        task(tmp_path / "text")
    assert "\n" not in str(error.value)
    datasets.DatasetDict(test=whole).save_to_disk(tmp_path / "odd")
    with pytest.raises(BadInput, match="no split named train"):
        task(tmp_path / "odd")


@pytest.mark.parametrize("fault", ["image", "class label", "text label"])
def test_a_missing_picture_or_label_is_one_line(tmp_path, fault):
    images = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(ROWS)]
    labels = [i % 2 for i in range(ROWS)]
    kind = datasets.ClassLabel(names=["no", "yes"])
    if fault == "text label":
        labels, kind = ["no" if i else "yes" for i in labels], datasets.Value("string")
    if fault == "image":
        images[5] = None
    else:
        labels[5] = None
    held = datasets.Dataset.from_dict(
        {"image": images, "label": labels},
        features=datasets.Features({"image": datasets.Image(), "label": kind}),
    )
    held.save_to_disk(tmp_path / "d")
    said = {"image": "row 5 of train has no image", "class label": "row 5 of train has no label"}
    with pytest.raises(BadInput, match=said.get(fault, "column 'label' has missing values in train")):
        task(tmp_path / "d")


def test_a_picture_without_its_file_is_one_line(tmp_path):
    """Folders of old versions name files that lie elsewhere; today's `save_to_disk` embeds them."""
    with pytest.raises(BadInput, match="image 3 cannot be read"):
        _bytes({"bytes": None, "path": str(tmp_path / "gone.png")}, "image 3")
    with pytest.raises(BadInput, match="image 3 is empty"):
        _bytes({"bytes": None, "path": None}, "image 3")
