import pickle

import pytest

from netwright.core.errors import MissingExtra, UnknownName, UnsupportedOperator


def test_the_nearest_name_is_offered():
    message = str(UnknownName("task", "digitz", ["digits", "mnist"], "`netwright data` lists them."))
    assert message == "no task named 'digitz'. Did you mean 'digits'? `netwright data` lists them."


def test_nothing_is_offered_where_nothing_is_near():
    assert "Did you mean" not in str(UnknownName("task", "zzz", ["digits", "mnist"]))


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("task", "digitz", ["digits"]),
        UnsupportedOperator("Resize (cubic)", "Resize_12", "Netwright"),
        MissingExtra("ray", "ray", "a cluster"),
    ],
)
def test_errors_cross_process_borders(error):
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.__dict__ == error.__dict__
