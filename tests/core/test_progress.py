from netwright.core import progress


def test_a_listener_hears_what_happens_inside_its_block_only():
    heard = []
    progress.step(1, 2, "before")
    with progress.listen(heard.append):
        progress.step(1, 10, "inside")
    progress.step(2, 2, "after")
    assert heard == [progress.Progress(1, 10, "inside")]
