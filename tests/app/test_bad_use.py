"""Bad use of the command line, in this process: one line that names the culprit, and exit code 2."""

from __future__ import annotations

import dataclasses
import json
import sys
import zipfile

import pytest
import torch
from tests.data.making import picture
from torch import nn

from netwright.app import cli
from netwright.app.settings import checked, words
from netwright.core import catalogue

LONG = "n" * 300
GOALS = ("compress", "inspect", "explain", "verify", "calibrate", "adapt", "train", "search")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run("improve", "--seed", -1) -> (exit code, what it printed, lines of errors), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETWRIGHT_CACHE", str(tmp_path / "cache"))

    def call(*given):
        monkeypatch.setattr(sys, "argv", ["netwright", *map(str, given)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return left.value.code, said.out, said.err.strip().splitlines()

    return call


@pytest.fixture
def refused(run):
    def call(*given):
        code, _, errors = run(*given)
        assert code == 2, errors
        assert len(errors) == 1, errors
        assert errors[0].startswith("error: ")
        return errors[0]

    return call


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Two classes of colour pictures: one network for any size, one for 16 x 20 only."""
    folder = tmp_path_factory.mktemp("networks")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    example, batch, auto = torch.randn(2, 3, 16, 20), torch.export.Dim("b"), torch.export.Dim.AUTO
    for name, sizes in (("free", {2: auto, 3: auto}), ("fixed", {})):
        program = torch.export.export(net.eval(), (example,), dynamic_shapes=({0: batch, **sizes},))
        torch.export.save(program, folder / f"{name}.pt2")
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Forty pictures of 12 x 10 in a folder, and the same in a zip."""
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            (tmp_path / "photos" / name / f"{i:02d}.png").write_bytes(picture(100 * c + i))
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        for path in sorted((tmp_path / "photos").rglob("*.png")):
            file.write(path, path.relative_to(tmp_path))
    return tmp_path


@pytest.mark.parametrize("words", [("improve",), ("compare", "compress"), ("calibrate",)])
@pytest.mark.parametrize("seed", [-1, 2**31, 2**32])
def test_a_seed_that_no_generator_takes(refused, words, seed):
    assert "'--seed'" in refused(*words, "--seed", seed)


@pytest.mark.parametrize(
    "words", [("improve", LONG), ("improve", f"{LONG}:build"), ("improve", "--task", LONG), ("inspect", LONG)]
)
def test_a_name_that_no_file_can_have(refused, words):
    assert "File name too long" in refused(*words)


@pytest.mark.parametrize(
    "words", [("claims", "temperature-scaling"), ("calibrate",), ("verify",), ("improve",), ("compare", "calibrate")]
)  # fmt: skip
def test_a_file_where_the_folder_should_be_is_found_before_the_work(refused, tmp_path, monkeypatch, words):
    monkeypatch.setattr("netwright.claims.record.module_of", None)
    monkeypatch.setattr("netwright.app.feeding.opening.train_generous", None)
    (tmp_path / "taken").write_text("")
    assert "taken is no folder; choose another --out" in refused(*words, "--out", "taken/deeper")


def test_an_option_of_another_goal_is_not_passed_over(refused):
    assert "for netwright verify" in refused("calibrate", "--radius", "0.1")


def test_what_is_offered_instead_can_be_used(refused, networks, tmp_path):
    (tmp_path / "nets.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(64, 10)\n")
    assert "Did you mean" not in refused("improve", "nets.py:troch")
    assert "Did you mean 'build'" in refused("improve", "nets.py:biuld")
    assert "Did you mean" not in refused("improve", "--size", 8)


def test_verify_writes_what_it_found(run, tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    code, said, errors = run(
        "verify", "nets.py:build", "--as-it-is", "--json", "--budget", "5s", "--out", "found"
    )
    assert code == 0, errors
    assert json.loads((tmp_path / "found" / "crown.json").read_text()) == json.loads(said)


@pytest.mark.parametrize("method", ["cka", "convergent-learning"])
def test_an_analysis_of_data_asks_for_a_task(refused, run, networks, method):
    assert "give --task" in refused("inspect", networks / "free.pt2", "--method", method)
    code, said, _ = run("inspect", networks / "free.pt2", "--method", "profile")
    assert code == 0
    assert "Conv2d" in said


@pytest.mark.parametrize(
    ("method", "setting", "said"),
    [
        ("taylor-pruning", "ratio=abc", "the setting 'ratio' must be a number, got 'abc'"),
        ("taylor-pruning", "ratio=true", "'ratio' must be a number, got True"),
        ("taylor-pruning", "steps=2.5", "'steps' must be a whole number, got 2.5"),
        ("taylor-pruning", "scope=best", "'scope' must be one of global, layer, got 'best'"),
        ("taylor-pruning", "seed=-1", "'seed' must be from 0 to 2147483647, got -1"),
        ("taylor-pruning", "seed=x", "'seed' must be from 0 to 2147483647, got 'x'"),
        ("static-int8", "reduce_range=1", "'reduce_range' must be true or false, got 1"),
        ("smooth-gradcampp", 'channels=[1, "a"]', "must be a list in brackets, each a whole number, got [1, 'a']"),
        ("smooth-gradcampp", "window=[1, 2]", "must be a list in brackets of length 4, each a whole number"),
        ("lst", "drop=3", "'drop' must be a list in brackets, each a whole number, got 3"),
        ("rankmixup", "fit=3", "'fit' cannot be given as text"),
        ("rankmixup", "=3", "has no setting ''"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_names_the_setting_its_type_and_the_value(refused, method, setting, said):
    assert said in refused(catalogue.method(method).goal, "--method", method, "--set", setting)


def test_every_default_that_text_can_give_is_taken():
    """No field of a method has a type that the check does not know."""
    count = 0
    for method in (m for goal in GOALS for m in catalogue.of_goal(goal)):
        defaults = {f.name: f.default for f in dataclasses.fields(method.load())}
        for name, value in defaults.items():
            if value is dataclasses.MISSING or value is None or callable(value) or name == "fit":
                continue
            text = (
                [list(v) if isinstance(v, tuple) else v for v in value] if isinstance(value, tuple) else value
            )
            assert checked(method, {name: text}) == {name: value}, (method.slug, name)
            count += 1
    assert count > 100
    assert words(int | None) == "a whole number"


@pytest.mark.parametrize("source", ["photos", "photos.zip"])
def test_pictures_are_brought_to_the_size_that_a_network_takes(run, networks, pictures, source):
    """In a folder or packed: a fixed size is kept to, a free one leaves the pictures as they are."""
    for name, shape in (("fixed", "[4, 14, 18]"), ("free", "[4, 10, 8]")):
        code, said, errors = run("inspect", networks / f"{name}.pt2", "--task", source, "--json")
        assert code == 0, errors
        assert shape in " ".join(said.split()).replace("[ ", "[").replace(" ]", "]")


def test_size_and_drop_can_be_said(run, refused, networks, pictures):
    free, fixed = networks / "free.pt2", networks / "fixed.pt2"
    code, said, errors = run("inspect", free, "--task", "photos", "--size", "20x16", "--json")
    assert code == 0, errors
    assert "[4, 18, 14]" in " ".join(said.split()).replace("[ ", "[").replace(" ]", "]")
    assert "write 32 or 32x48" in refused("inspect", free, "--task", "photos", "--size", "3y")
    assert "takes 3x16x20" in refused("inspect", fixed, "--task", "photos", "--size", "8")
    assert "no option of 'digits' named 'size'" in refused("inspect", "--task", "digits", "--size", "8")
    rows = "".join(f"u{i},{i % 2},{i}\n" for i in range(80))
    (pictures / "t.csv").write_text("id,label,a\n" + rows)
    assert "--drop" in refused("calibrate", fixed, "--task", "t.csv")
    assert "takes 3x16x20, but task 't' gives 1" in refused(
        "calibrate", fixed, "--task", "t.csv", "--drop", "id"
    )
    assert "Did you mean 'id'" in refused("calibrate", fixed, "--task", "t.csv", "--drop", "idd")
