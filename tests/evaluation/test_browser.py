"""report.html in a real browser: nothing is asked for, nothing overlaps, it fits and it prints."""

import base64
import os
import shutil

import numpy as np
import pytest
from drivers.devtools import Browser
from made_reports import made, written

from jataug.evaluation.report.html import write_html

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOSTILE = "<script>window.hacked=1</script><img src=http://127.0.0.1:9/x onerror=window.hacked=1>"
LONG = {str(k): f"a_class_with_a_very_long_name_of_one_word_number_{k}" * 2 for k in range(1000)}
CASES = {
    "plain": {"images": 128, "hardness": 2.0},
    "three models": {"models": ("a", "a model with a rather long name, as people give them", "c")},
    "nine models": {"models": tuple(f"model_{k}_of_nine" for k in range(9)), "images": 200},
    "one image": {"images": 1},
    "none robust": {"hardness": 0.0},
    "all robust": {"hardness": np.inf},
    "no attacks": {"attacks": (), "curves": False},
    "settings in the name": {"attacks": ("pgd:steps=100:restarts=20", "pgd", "flow:steps=100")},
    "long names": {"classes": 1000, "names": LONG, "shape": (3, 32, 32),
                   "models": ("efficientnet_lite0-a62137a33819-with-a-long-name-of-one-word",)},
    "not square": {"shape": (3, 60, 20)},
    "photographs": {"shape": (3, 224, 224), "images": 8},
    "many images": {"images": 5000, "hardness": 2.0},
    "hostile": {"models": (HOSTILE,), "names": dict.fromkeys(map(str, range(10)), HOSTILE),
                "command": HOSTILE},
}  # fmt: skip

OVERLAPS = """[...document.querySelectorAll('svg.chart')].flatMap(chart => {
  const frame = chart.getBoundingClientRect();
  const texts = [...chart.querySelectorAll('text')]
    .map(e => [e.textContent, e.getBoundingClientRect()]);
  const out = texts.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1
      || b.top < frame.top - 1 || b.bottom > frame.bottom + 1).map(([t]) => t + ' leaves');
  texts.forEach(([t, a], k) => texts.slice(k + 1).forEach(([u, b]) => {
    if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2) out.push(t + ' meets ' + u);
  }));
  return out;
})"""
LOADED = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length"
PICTURES = "document.images.length"
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"
CONTRAST = """(() => {
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  let least = 99;
  for (const e of document.querySelectorAll('h1,h2,h3,p,th,td,small,summary,code,li,span,b,text')) {
    if (e.closest('.cell') || !e.textContent.trim()) continue;
    const style = getComputedStyle(e), ink = e.tagName === 'text' ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    least = Math.min(least, (a + 0.05) / (b + 0.05));
  }
  return least; })()"""
SHAPES = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        said = f"no browser on this machine: install one of {', '.join(NAMES)}"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    with Browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def show(browser, tmp_path):
    """Open the page of a made-up report; its address."""

    def call(size=(1200, 900), phone=False, **case):
        page = tmp_path / "report.html"
        write_html(written(made(**case), tmp_path), page)
        browser.requests.clear()
        browser.problems.clear()
        browser.call("Emulation.setEmulatedMedia", {"media": "", "features": []})
        browser.open(page.as_uri(), size, phone=phone)
        browser.evaluate("new Promise(done => setTimeout(done, 100))")
        return page.as_uri()

    return call


def media(browser, kind="", scheme="light"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.call("Emulation.setEmulatedMedia", {"media": kind, "features": features})


@pytest.mark.parametrize("case", CASES)
def test_it_renders_quietly_and_fits(browser, show, case):
    address = show((360, 740), phone=True, **CASES[case])
    for size in ((360, 740), (768, 1024), (1200, 900)):
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1,
                   "mobile": size[0] < 500}  # fmt: skip
        browser.call("Emulation.setDeviceMetricsOverride", metrics)
        scroll, inner = browser.evaluate(WIDTHS)
        assert scroll <= inner == size[0]
        assert browser.evaluate(OVERLAPS) == []
    assert browser.evaluate(LOADED) == 0
    assert [url for url in browser.requests if not url.startswith("data:")] == [address]
    assert browser.problems == []
    assert browser.evaluate("window.hacked === undefined")


def test_a_gallery_has_its_pictures(browser, show):
    show(**CASES["plain"])
    assert browser.evaluate(PICTURES) == 12
    assert browser.evaluate("document.querySelectorAll('svg.arrows image').length") == 4
    rendering = "getComputedStyle(document.images[0]).imageRendering"
    assert browser.evaluate(rendering) == "pixelated"
    show(**CASES["photographs"])
    assert browser.evaluate(rendering) == "auto"


def test_the_harness_sees_faults(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        "<link rel=icon href='data:,'><body style='width:900px'>"
        "<img src='nothing.png'><script>null.x</script>"
        "<svg class=chart width=100 height=40><text x=9 y=30>one</text><text x=15 y=30>two</text>"
        "<text x=90 y=30>three</text></svg>"
    )
    browser.requests.clear()
    browser.problems.clear()
    browser.open(page.as_uri(), (360, 740), phone=True)
    browser.evaluate("new Promise(done => setTimeout(done, 100))")
    assert page.with_name("nothing.png").as_uri() in browser.requests
    assert any("null" in problem for problem in browser.problems)
    assert browser.evaluate(LOADED) == 1
    assert browser.evaluate(OVERLAPS) == ["three leaves", "one meets two"]
    assert browser.evaluate("document.documentElement.scrollWidth") > 360


WIDER = """[...document.querySelectorAll('table')].map(table => {
  const box = table.closest('.scroll') ?? table.parentElement, style = getComputedStyle(box);
  return [table.offsetWidth > box.clientWidth, style.overflowX, style.backgroundImage];
})"""
UNFOLD = "document.querySelectorAll('details').forEach(e => e.open = true)"


def test_a_table_that_is_wider_than_a_phone_scrolls_in_its_box_and_shows_it(browser, show):
    show((400, 740), phone=True, **CASES["plain"])
    browser.evaluate(UNFOLD)
    wider = [rest for over, *rest in browser.evaluate(WIDER) if over]
    assert len(wider) > 1
    assert all(overflow == "auto" and "gradient" in shade for overflow, shade in wider)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(browser, show, scheme):
    show(**CASES["three models"])
    media(browser, scheme=scheme)
    ground = browser.evaluate(SHAPES)
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert browser.evaluate(CONTRAST) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints_dark_on_white_with_everything_unfolded(browser, show, scheme):
    show(**CASES["three models"])
    media(browser, "print", scheme)
    assert browser.evaluate(SHAPES) == "rgb(255, 255, 255)"
    assert browser.evaluate(CONTRAST) >= 4.5
    closed = "[...document.querySelectorAll('section#curves details:not([open]) table')]"
    heights = browser.evaluate(f"{closed}.map(e => e.getBoundingClientRect().height)")
    assert len(heights) == 2
    assert min(heights) > 50
    printed = browser.call("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    data = base64.b64decode(printed["data"])
    assert data.startswith(b"%PDF")
    assert 3 <= data.count(b"/Type /Page\n") <= 40


def test_a_printed_page_is_not_wider_than_the_paper(browser, show):
    show((680, 1000), **CASES["three models"])  # A4 between its margins, CSS pixels
    media(browser, "print")
    scroll, inner = browser.evaluate(WIDTHS)
    assert scroll <= inner


def test_charts_can_be_read_by_ear(browser, show):
    show(**CASES["three models"])
    named = browser.call("Accessibility.getFullAXTree")["nodes"]
    images = [n for n in named if n.get("role", {}).get("value") == "image"]
    said = [n["name"]["value"] for n in images if n.get("name", {}).get("value")]
    assert len(said) == len(images) > 0
    assert any(
        "Accuracy against the pixel radius" in name and "% at 8/255" in name for name in said
    )
