"""The starts of a batch are drawn while the batch before is attacked."""

import threading
import time

from jataug.generator import generate


class Drawing:
    """A session that says when it draws and when it attacks, and from which thread."""

    def __init__(self, session):
        self._session, self.said = session, []

    def __getattr__(self, name):
        return getattr(self._session, name)

    def draw(self, images, indices, *, seed, epoch):
        self.said.append(("draw", indices[0], threading.current_thread().name))
        return int(indices[0]), seed, epoch

    def attack(self, images, labels, indices, *, seed, epoch, start):
        assert start == (indices[0], seed, epoch)
        deadline = time.monotonic() + 30
        while ("draw", indices[0] + 4) not in [w[:2] for w in self.said] and indices[0] < 8:
            assert time.monotonic() < deadline, "the next batch is not drawn for meanwhile"
            time.sleep(0.01)
        self.said.append(("attack", indices[0], threading.current_thread().name))
        return self._session.attack(images, labels, indices, seed=seed, epoch=epoch)


def test_starts_are_drawn_while_the_batch_before_is_attacked(new_session, folder, tmp_path):
    session = Drawing(new_session())
    options = {"batch_size": 4, "shard_size": 8, "seed": 3}
    generate(None, folder, tmp_path / "out", session=session, **options)
    attacks = [word for word in session.said if word[0] == "attack"]
    assert [first for _, first, _ in attacks] == [0, 4, 8]
    draws = [word for word in session.said if word[0] == "draw"]
    assert sorted(first for _, first, _ in draws) == [0, 4, 8]
    assert {name for *_, name in draws}.isdisjoint({name for *_, name in attacks})
    generate(None, folder, tmp_path / "plain", session=new_session(), **options)
    for one in sorted((tmp_path / "plain").rglob("*.png")):
        twin = tmp_path / "out" / one.relative_to(tmp_path / "plain")
        assert twin.read_bytes() == one.read_bytes()
