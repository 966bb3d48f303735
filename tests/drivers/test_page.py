"""The page, in a real browser: a picture is dropped, and everything stays on this machine."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from drivers.devtools import Browser
from drivers.packages import EXAMPLES, program
from material import DEMO

from jataug import Session

pytestmark = pytest.mark.heavy

DESKTOP, PHONE = (1200, 900), (390, 844)
CLASSES = json.loads((DEMO / "demo.json").read_text(encoding="utf-8"))["classes"]
READY = "document.querySelector('#status').textContent.startsWith('Choose')"
DONE = "/random start/.test(document.querySelector('#status').textContent)"
TEXT = "document.querySelector('{}').textContent"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(
    browser_example: Path,
    attack_file: Path,
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The address of a built site."""
    folder = tmp_path_factory.mktemp("www")
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    command = [program("node"), str(browser_example / "build.mjs"), str(attack_file)]
    command += ["-o", str(folder / "site"), "--labels", str(folder / "labels.txt")]
    run = subprocess.run(
        [*command, "--pictures", str(pictures)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder / "site"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser(chromium: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    profile = tmp_path_factory.mktemp("profile")
    with Browser(str(chromium), profile) as page:
        yield page
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Browser]:
    """The page, ready; afterwards it must have asked for nothing else and complained of nothing."""
    browser.requests.clear()
    browser.problems.clear()
    browser.open(site, DESKTOP)
    browser.wait(READY)
    yield browser
    assert browser.requests
    assert [url for url in browser.requests if not url.startswith((site, "data:", "blob:"))] == []
    assert browser.problems == []


def pixels(page: Browser, canvas: str) -> np.ndarray:
    """The first channel of a canvas: (height, width)."""
    data = page.evaluate(
        f"(() => {{ const c = document.querySelector('{canvas}');"
        " const copy = new OffscreenCanvas(c.width, c.height);"
        " const context = copy.getContext('2d', { willReadFrequently: true });"
        " context.drawImage(c, 0, 0);"
        " const d = context.getImageData(0, 0, c.width, c.height);"
        " return [c.height, c.width, Array.from(d.data)]; })()"
    )
    return np.array(data[2], np.uint8).reshape(data[0], data[1], 4)[..., 0]


def slide(page: Browser, name: str, value: float) -> None:
    page.evaluate(
        f"(() => {{ const s = document.querySelector('#{name}'); s.value = {value};"
        " s.dispatchEvent(new Event('input')); })()"
    )


def test_a_dropped_picture_is_attacked(
    page: Browser, pictures: Path, attack_file: Path, levels: np.ndarray, tmp_path: Path
) -> None:
    page.drop(pictures / "8.png", "#drop")
    page.wait(DONE)
    with Session.open(attack_file, device="cpu", threads=1) as session:
        wanted = session.attack(levels[1:2])
        clean = session.attack(levels[1:2], flow=0, pixel=0, steps=0)
        made = pixels(page, "#adversarial")
        measured = torch.from_numpy(session.predict(made[None, :, :, None]))
    assert wanted.success.all()
    before, after = CLASSES[wanted.label[0]], CLASSES[wanted.prediction[0]]
    assert page.evaluate(TEXT.format("#verdict")) == f"{before} → {after}"
    assert page.evaluate(TEXT.format("#clean-labels li")).startswith(before)
    assert page.evaluate(TEXT.format("#adversarial-labels li")).startswith(after)
    np.testing.assert_array_equal(pixels(page, "#clean"), levels[1, :, :, 0])
    # As strong an attack; each step of it is held by the vector. One image: a mean of one loss.
    assert CLASSES[measured.argmax()] == after
    loss = torch.nn.functional.cross_entropy(measured, torch.from_numpy(wanted.label)).item()
    gained = (wanted.loss - clean.loss).item()
    assert gained > 1
    assert abs(loss - wanted.loss.item()) <= gained / 2
    assert page.evaluate(TEXT.format("#flow-note")) == "at most 0.30 px"
    assert pixels(page, "#arrows").std() > 5
    assert len(np.unique(pixels(page, "#delta"))) > 2
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_the_vector_is_reproduced_in_wasm(page: Browser) -> None:
    page.evaluate("document.querySelector('#check').click()")
    page.wait("!document.querySelector('#report').hidden")
    said = page.evaluate(TEXT.format("#status"))
    agreed, of, total = said.split()[:3]
    assert of == "of"
    assert agreed == total == "81", said
    cells = page.evaluate(
        "[...document.querySelectorAll('#report tbody tr')]"
        ".map(r => [...r.cells].map(c => c.textContent))"
    )
    assert len(cells) == 6
    assert {form for _, form, _, _ in cells} == {"step", "loop", "unrolled"}
    assert all(float(largest) <= 1e-4 and agrees == "yes" for _, _, largest, agrees in cells)


def test_without_budgets_nothing_changes(page: Browser, pictures: Path) -> None:
    for name in ("flow", "pixel"):
        slide(page, name, 0)
    page.drop(pictures / "7.png", "#drop")
    page.wait(DONE)
    np.testing.assert_array_equal(pixels(page, "#adversarial"), pixels(page, "#clean"))
    assert page.evaluate(TEXT.format("#verdict")).startswith("still ")
    slide(page, "pixel", 24)
    page.evaluate("document.querySelector('#pixel').dispatchEvent(new Event('change'))")
    page.wait(f"/→/.test({TEXT.format('#verdict')})")
    changed = pixels(page, "#adversarial").astype(int) - pixels(page, "#clean")
    assert np.abs(changed).max() == 24


def test_the_form_in_the_file_decides(page: Browser, pictures: Path) -> None:
    page.drop(EXAMPLES / "vector" / "claim-1-loop.onnx", "#drop")
    page.wait("/claim-1-loop.onnx: ready/.test(document.querySelector('#status').textContent)")
    assert page.evaluate("document.querySelector('#steps').disabled") is True
    page.drop(pictures / "7.png", "#drop")
    page.wait(DONE)
    assert pixels(page, "#adversarial").shape == (10, 9)
    assert "class " in page.evaluate(TEXT.format("#verdict"))


def test_wrong_files_are_named(page: Browser, pictures: Path, tmp_path: Path) -> None:
    wrong = "document.querySelector('#status').classList.contains('wrong')"
    for name, says in (
        ("text.onnx", "not an ONNX file"),
        ("picture.png", "expected a picture"),
        ("names.txt", "expected 10 names, got 1"),
    ):
        (tmp_path / name).write_text("no such thing")
        page.drop(tmp_path / name, "#drop")
        page.wait(f"{wrong} && document.querySelector('#status').textContent.includes('{says}')")
    page.drop(pictures / "9.png", "#drop")
    page.wait(f"{DONE} && !{wrong}")


def test_it_fits_a_phone(page: Browser, site: str, pictures: Path) -> None:
    page.open(site, PHONE, phone=True)
    page.wait(READY)
    page.drop(pictures / "7.png", "#drop")
    page.wait(DONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    sizes = page.evaluate(
        "['#clean-labels', '#status', '#flow-note', 'button'].map("
        "s => parseFloat(getComputedStyle(document.querySelector(s)).fontSize))"
    )
    assert min(sizes) >= 12
    slider = page.evaluate("document.querySelector('#flow').getBoundingClientRect().toJSON()")
    assert slider["height"] >= 24
    assert slider["width"] > PHONE[0] * 0.8
