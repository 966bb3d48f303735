import re
from pathlib import Path

import numpy as np
import pytest

from jataug import BudgetError, FlowBudget, PixelBudget, streams

SPECIFICATION = Path(__file__).parent.parent / "docs" / "streams.md"
MASK = 2**64 - 1


def philox(counter, key):
    """Return one block of Philox4x64-10, from the specification in docs/streams.md alone."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (
            (second >> 64) ^ c1 ^ k0,
            second & MASK,
            (first >> 64) ^ c3 ^ k1,
            first & MASK,
        )
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return [c0, c1, c2, c3]


def reference(seed, index, tensor, count, *, epoch=0, restart=0):
    blocks = [
        philox((block, tensor, restart, epoch), (seed, index)) for block in range(1, count // 4 + 2)
    ]
    return [word for block in blocks for word in block][:count]


def published():
    row = re.compile(r"^\| (\d+) \| (\d+) \| (\d) \| (\d+) \| (\d+) \| ([0-9a-f ]+) \|$", re.M)
    found = [
        (*map(int, groups[:5]), [int(word, 16) for word in groups[5].split()])
        for groups in row.findall(SPECIFICATION.read_text("utf-8"))
    ]
    assert len(found) == 6
    return found


# The vectors of docs/streams.md again: to fit both to a change of the code breaks a promise.
VECTORS = {
    (0, 0, 1, 0, 0): [0x363C6D54F81BA26E, 0x372E02C93DE0B01E, 0xC182A0E88E99B6D5],
    (0, 0, 3, 0, 0): [0x6D33FBFB77549F6E, 0x21F3C44BA6212248, 0xA016456C08284E8D],
    (1, 7, 1, 0, 3): [0x0B872401D79A9B34, 0xFFE979D30997A67E, 0x6E562693811086E4],
    (1, 7, 3, 0, 3): [0x22DB2C707B6F5056, 0x14C24F344902CCB6, 0x510A27D2E87D8F49],
}


@pytest.mark.parametrize(
    ("value", "block"),
    [
        (0, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (MASK, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
    ],
)
def test_the_reference_gives_the_known_answers_of_philox(value, block):
    """The known answers that the authors of the generator publish with their library."""
    assert philox((value,) * 4, (value,) * 2) == [int(word, 16) for word in block.split()]


@pytest.mark.parametrize("vector", published(), ids=lambda vector: "-".join(map(str, vector[:5])))
def test_published_words(vector):
    seed, index, tensor, restart, epoch, expected = vector
    found = streams.words(seed, index, tensor, 6, epoch=epoch, restart=restart)
    assert found.tolist() == expected
    assert reference(seed, index, tensor, 6, epoch=epoch, restart=restart) == expected


@pytest.mark.parametrize("place", VECTORS)
def test_words_are_those_of_the_first_release(place):
    seed, index, tensor, restart, epoch = place
    found = streams.words(seed, index, tensor, 3, epoch=epoch, restart=restart)
    assert found.tolist() == VECTORS[place]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 4001])
def test_words_of_any_count_equal_the_reference(count):
    found = streams.words(12, 34, 2, count, epoch=56, restart=78)
    assert found.dtype == np.uint64
    assert found.tolist() == reference(12, 34, 2, count, epoch=56, restart=78)


def test_published_draws():
    def close(found, *expected):
        np.testing.assert_allclose(found.ravel(), expected, rtol=2e-6)

    flow, linf = FlowBudget(0.3), FlowBudget(0.3, "linf")
    uniform = [float(word >> 11) * 2.0**-53 for word in reference(0, 0, 1, 2)]
    assert uniform == [0.21185954403345741, 0.21554582036140135]
    close(streams.flow_start(0, 0, (1, 2), flow), 0.00511729, -0.13620606, -0.13798976, -0.02910382)
    close(streams.flow_start(0, 0, (1, 2), linf), -0.17288427, -0.1706725, 0.15353969, 0.02010215)
    box, ball = PixelBudget("8/255"), PixelBudget(1, "l2")
    close(streams.pixel_start(0, 0, (1, 2, 2), box), 0.0100498, 0.00697084, -0.01797512, 0.01604686)
    close(
        streams.pixel_start(0, 0, (1, 2, 2), ball), -0.56363773, -0.3028189, -0.5643394, 0.29093277
    )
    found = streams.target_labels(0, range(8), range(8), 10)
    assert found.tolist() == [4, 4, 8, 7, 5, 8, 7, 5]
    for iteration, expected in ((0, 5), (5, 0)):
        assert streams.target_labels(1, [7], [3], 10, epoch=3, iteration=iteration) == [expected]
    text = SPECIFICATION.read_text("utf-8")
    for number in ("0.00511729", "0.15353969", "0.0100498", "-0.56363773", "4 4 8 7 5 8 7 5"):
        assert number in text


def uniform(words):
    return [(word >> 11) * 2.0**-53 for word in words]


def test_draws_follow_their_formulas():
    u = np.array(uniform(reference(3, 4, 1, 24, epoch=5)))
    length, angle = 0.7 * np.sqrt(u[:12]), 2 * np.pi * u[12:]
    expected = np.stack([length * np.cos(angle), length * np.sin(angle)]).reshape(2, 3, 4)
    found = streams.flow_start(3, 4, (3, 4), FlowBudget(0.7), epoch=5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)

    u = np.array(uniform(reference(3, 4, 2, 25, epoch=5)))
    normal = np.sqrt(-2 * np.log(1 - u[1:13])) * np.cos(2 * np.pi * u[13:])
    expected = 0.5 * u[0] ** (1 / 12) * normal / np.sqrt((normal**2).sum())
    found = streams.pixel_start(3, 4, (3, 2, 2), PixelBudget(0.5, "l2"), epoch=5)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)
    found = streams.pixel_start(3, 4, (3, 2, 2), PixelBudget(0.5), epoch=5)
    np.testing.assert_allclose(found.ravel(), 0.5 * (2 * u[:12] - 1), rtol=1e-6)


def test_draws_scale_with_the_radius():
    for draw, budget, size in (
        (streams.flow_start, FlowBudget, (4, 4)),
        (streams.pixel_start, PixelBudget, (3, 4, 4)),
    ):
        for norm in ("l2", "linf"):
            one = draw(0, 0, size, budget(1, norm))
            quarter = draw(0, 0, size, budget(0.25, norm))
            np.testing.assert_allclose(quarter, one / 4, rtol=1e-6)
            assert not draw(0, 0, size, budget(0, norm)).any()
            assert one.dtype == np.float32


@pytest.mark.parametrize("other", [{"seed": 1}, {"index": 1}, {"epoch": 1}, {"restart": 1}])
def test_every_coordinate_gives_another_stream(other):
    place = {"seed": 0, "index": 0, "tensor": streams.FLOW, "count": 8}
    assert not np.isin(streams.words(**(place | other)), streams.words(**place)).any()


def test_tensors_have_streams_of_their_own():
    found = [streams.words(0, 0, t, 8) for t in (streams.FLOW, streams.PIXEL, streams.TARGET)]
    assert len(np.unique(np.concatenate(found))) == 24


@pytest.mark.parametrize("value", [-1, 2**64, 0.5, 1.0, "1", None])
@pytest.mark.parametrize("name", ["seed", "index", "epoch", "restart"])
def test_what_is_no_word_is_refused(name, value):
    place = {"seed": 0, "index": 0, "tensor": 1, "count": 1}
    with pytest.raises(BudgetError, match=rf"^{name}: expected an integer in \[0, 2\*\*64\)"):
        streams.words(**(place | {name: value}))


def distance(sample, cumulative=lambda value: value):
    """Return the Kolmogorov-Smirnov distance, scaled; 1.95 has p = 0.001."""
    value = cumulative(np.sort(np.ravel(sample).astype(np.float64)))
    rank = np.arange(value.size + 1) / value.size
    return max(abs(value - rank[1:]).max(), abs(value - rank[:-1]).max()) * value.size**0.5


def test_flow_starts_are_uniform_in_the_disc():
    found = streams.flow_start(5, 0, (150, 150), FlowBudget(2.0)).astype(np.float64)
    assert distance((found**2).sum(0) / 4) < 1.95
    assert distance(np.arctan2(found[1], found[0]) / (2 * np.pi) + 0.5) < 1.95
    # A radius that is uniform itself, the usual mistake, crowds the centre.
    assert distance(np.sqrt((found**2).sum(0)) / 2) > 10


def test_linf_starts_are_uniform_in_the_box():
    for found in (
        streams.flow_start(5, 0, (100, 150), FlowBudget(0.5, "linf")),
        streams.pixel_start(5, 0, (2, 100, 150), PixelBudget(0.5)),
    ):
        for channel in found:
            assert distance(channel + 0.5) < 1.95
        assert abs(np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 2, 2), (3, 2, 2)])
def test_l2_pixel_starts_are_uniform_in_the_ball(shape):
    n = int(np.prod(shape))
    found = np.stack(
        [streams.pixel_start(5, i, shape, PixelBudget(0.5, "l2")) for i in range(3000)]
    ).reshape(-1, n)
    length = np.linalg.norm(found.astype(np.float64), axis=1) / 0.5
    assert length.max() <= 1 + 1e-6
    assert distance(length**n) < 1.95
    directions = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(directions.mean(0), 0, atol=4 / (3000 * n) ** 0.5)
    np.testing.assert_allclose(directions.T @ directions / 3000 * n, np.eye(n), atol=0.15)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_targets_are_uniform_over_the_other_labels(classes):
    count = 6000
    labels = np.arange(count) % classes
    found = streams.target_labels(9, range(count), labels, classes)
    assert found.dtype == np.int64
    assert (found != labels).all()
    assert ((found >= 0) & (found < classes)).all()
    offset = np.bincount((found - labels) % classes, minlength=classes)
    expected = count / (classes - 1)
    assert offset[0] == 0
    # The chi-square statistic; 27.9 has p = 0.001 for 9 degrees of freedom.
    assert ((offset[1:] - expected) ** 2 / expected).sum() < 27.9


def test_targets_of_iterations_are_words_of_one_stream():
    words = reference(2, 3, 3, 6)
    for iteration in range(6):
        offset = int((words[iteration] >> 11) * 2.0**-53 * 99)
        found = streams.target_labels(2, [3], [40], 100, iteration=iteration)
        assert found.tolist() == [(40 + 1 + offset) % 100]
