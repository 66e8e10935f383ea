from netwright.core import progress


def test_a_listener_hears_what_happens_inside_its_block_only():
    heard = []
    progress.step(1, 2, "before")
    with progress.listen(heard.append):
        progress.step(1, 10, "inside")
    progress.step(2, 2, "after")
    assert heard == [progress.Progress(1, 10, "inside")]


def test_remarks_are_collected_once_each_and_only_inside_the_block():
    progress.remark("nobody asked")
    with progress.remarks() as said:
        progress.remark("this")
        progress.remark("this")
    progress.remark("too late")
    assert said == ["this"]
