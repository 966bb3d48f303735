"""A source that is one compressed stream is read in order, or every sample starts it over."""

import random
import time

import numpy as np
import pytest

from jataug.data import Source
from jataug.generator import generate


class Stream(Source):
    """Remembers in which order it is read."""

    labelled = True

    def __init__(self, random_access):
        self.random_access, self.order = random_access, []

    def __len__(self):
        return 40

    def key(self, index):
        return f"{index:05d}"

    def label(self, index):
        return index % 3

    def where(self, index):
        return f"stream[{index}]"

    def read(self, index):
        self.order.append(index)
        time.sleep(random.random() / 500)
        return np.full((10, 12, 3), index, np.uint8)

    def describe(self, *, content=False):
        return {"kind": "stream", "count": 40, "fingerprint": "none"}


def test_a_stream_is_read_in_order_though_batches_are_read_ahead(session, tmp_path):
    source = Stream(random_access=False)
    generate(None, source, tmp_path / "out", session=session, batch_size=4, format="npz")
    assert source.order == list(range(40))


@pytest.mark.parametrize("random_access", [True, False])
def test_an_error_in_one_batch_ends_the_run(session, tmp_path, random_access, monkeypatch):
    from jataug.errors import DataError

    source = Stream(random_access)
    whole = source.read

    def read(index):
        if index == 9:
            raise DataError("stream[9]: broken")
        return whole(index)

    monkeypatch.setattr(source, "read", read)
    with pytest.raises(DataError, match=r"stream\[9\]: broken"):
        generate(None, source, tmp_path / "out", session=session, batch_size=4)
