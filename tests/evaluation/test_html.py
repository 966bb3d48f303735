"""What stands in report.html; test_browser.py has what a browser makes of it."""

import base64
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_reports import PIXEL, made, written
from PIL import Image

from jataug.errors import DataError
from jataug.evaluation import load_report
from jataug.evaluation.report.contents import Map, Rate
from jataug.evaluation.report.html import html_page, write_html
from jataug.evaluation.report.page.chart import ticks
from jataug.evaluation.report.page.numbers import duration, interval, percent, radius
from jataug.evaluation.report.page.pictures import shown_attack
from jataug.evaluation.report.wording import THREATS, distinct

EXAMPLE = Path(__file__).parent / "example" / "report.json"
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=hacked=1>\"'&\x00\u202e\n</style>{é日"
LONG = {str(k): f"a class with a very long name, number {k}, " * 2 for k in range(1000)}
CASES = {
    "plain": {},
    "three models": {"models": ("a", "b", "c")},
    "nine models": {"models": tuple(f"model-{k}-of-nine" for k in range(9)), "images": 200},
    "one image": {"images": 1},
    "none robust": {"hardness": 0.0},
    "all robust": {"hardness": np.inf},
    "no curves": {"curves": False},
    "no attacks": {"attacks": (), "curves": False},
    "pixels only": {"attacks": ("pgd",)},
    "rotation only": {"attacks": ("rotate",), "curves": False},
    "settings in the name": {"attacks": ("pgd:steps=100:restarts=20", "pgd", "flow:steps=100")},
    "1000 classes": {"classes": 1000, "names": LONG, "shape": (3, 32, 32)},
    "colour, not square": {"shape": (3, 60, 20)},
    "photographs": {"shape": (3, 224, 224)},
    "one pixel": {"shape": (1, 1, 1)},
    "many images": {"images": 2000, "hardness": 2.0},
    "hostile": {
        "names": dict.fromkeys(map(str, range(10)), HOSTILE),
        "attacks": ("pgd:<script>window.hacked=1</script>", "flow:\"'&</td>"),
    },
}
ATTACKS = ("noise", "pgd", "flow", "joint", "rotate")
VOID = {"meta", "link", "img", "br"}
# Fields whose values the schema lists, and the name of a file.
FIXED = {"kind", "threat", "unit", "verdict", "labels", "measured", "file", "plan_hash", "norm"}


class Reader(HTMLParser):
    """Elements, their attributes and text; fails where a tag is not closed in its place."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.elements, self.text, self.rows = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if self.rows and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    report = made(**CASES[request.param])
    return report, html_page(written(report, tmp_path_factory.mktemp("case")))


def test_every_case_is_a_whole_page(case):
    read = Reader(case[1])
    names = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in read.elements:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(names)
    assert all(attributes["alt"] for attributes in read.all("img"))
    charts = [a for a in read.all("svg") if a.get("class") == "chart"]
    assert all(a["role"] == "img" for a in charts)
    assert len(charts) == len(read.all("desc"))


def test_a_page_asks_for_nothing(case):
    page = case[1]
    read = Reader(page)
    for tag, attributes in read.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form", "a")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    css = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css
    policy = next(a["content"] for a in read.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:")


def poisoned(value, key=""):
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    # The names of attacks are keys of the gallery too: the case "hostile" has one.
    kept = key in FIXED or value in ATTACKS
    return value if kept or not isinstance(value, str) else value + HOSTILE


def test_no_text_of_a_report_is_markup(tmp_path):
    report = made(models=("a", "b"), names={str(k): f"kind-{k}" for k in range(10)})
    path = written(report, tmp_path)
    plain = Reader(html_page(path))
    path.write_text(json.dumps(poisoned(report.to_dict())))
    page = html_page(path)
    read = Reader(page)
    assert not {tag for tag, _ in read.elements} - {tag for tag, _ in plain.elements}
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x00" not in page
    assert "\u202e" not in page
    # As text it is there, with what cannot be seen spelled out.
    shown = HOSTILE.replace("\x00", r"\x00").replace("\u202e", r"\u202e").replace("\n", r"\n")
    text = "".join(read.text)
    kind = f"kind-{report.models[0].gallery.images[0].label}"
    for field in (report.command, report.models[1].name, kind, report.models[1].warnings[0]):
        assert field + shown in text


def test_half_surrogates_of_file_names_can_be_written(tmp_path):
    report = made(command="jataug evaluate m.onnx bytes\udcff -o out")
    write_html(written(report, tmp_path), tmp_path / "report.html")
    assert rb"bytes\udcff" in (tmp_path / "report.html").read_bytes()


def row_of(read, *start):
    return next(row for row in read.rows if tuple(row[: len(start)]) == start)


def said(rate):
    return f"{percent(rate.value)} {interval(rate)} · {rate.correct}\u00a0of\u00a0{rate.total}"


def test_the_tables_hold_the_numbers_of_the_report(tmp_path):
    report = made(models=("first", "second"))
    read = Reader(html_page(written(report, tmp_path)))
    for k, model in enumerate(report.models):
        assert said(model.clean_accuracy) in row_of(read, "clean")[k + 1]
        for attack in model.attacks:
            cell = row_of(read, attack.name)[k + 1]
            assert said(attack.accuracy) in cell
            assert "1\u00a0h 02\u00a0min" in cell
        for worst in distinct(model.worst):
            outside = " outside the budgets" * (worst.threat == "all")
            title = f"worst case, {THREATS[worst.threat]}{outside}"
            assert said(worst.accuracy) in row_of(read, title)[k + 1]
    assert row_of(read, "pgd")[3:] == ["pixels", "20", "1"]
    assert row_of(read, "rotate")[3:] == ["rotation and shift", "\u2013", "\u2013"]


def test_the_headline_is_the_worst_case_inside_the_budgets(tmp_path):
    report = made(hardness=2.0)
    text = "".join(Reader(html_page(written(report, tmp_path))).text)
    joint = next(w for w in report.models[0].worst if w.threat == "joint").accuracy
    everything = next(w for w in report.models[0].worst if w.threat == "all").accuracy
    assert joint.value > everything.value  # else this test could not fail
    assert f"{percent(joint.value)}worst-case robust accuracy95% interval {interval(joint)}" in text
    assert "flow 0.3\u00a0px (l2) and pixel 8/255 = 0.03137 (linf)" in text


def test_without_an_attack_inside_the_budgets_there_is_no_headline(tmp_path):
    report = made(attacks=("rotate",), curves=False)
    text = "".join(Reader(html_page(written(report, tmp_path))).text)
    assert "\u2013no attack within the budgets was run" in text
    assert "worst-case robust accuracy" not in text


def test_the_charts_hold_the_numbers_of_the_report(tmp_path):
    report = made(models=("first", "second"))
    text = "".join(Reader(html_page(written(report, tmp_path))).text)
    for model in report.models:
        for curve in (model.pixel_curve, model.flow_curve):
            words = (
                f"{percent(p.accuracy.value)} at {radius(p.radius, curve.unit)}"
                for p in curve.points
            )
            assert f"{model.name}: {', '.join(words)}" in text
        for i, flow in enumerate(model.map.flow):
            for j, pixel in enumerate(model.map.pixel):
                rate = model.map.accuracy[i][j]
                where = f"flow {radius(flow, 'pixels')}, pixels {radius(pixel, 'image')}"
                assert f"{where}: {percent(rate.value)} ({interval(rate)}" in text
        for held in (model.minimal_pixel, model.minimal_flow):
            assert f"{held.found} of {held.total} images broken up to" in text


@pytest.mark.parametrize("hardness", [0.0, 0.5, 2.0, np.inf])
def test_the_bars_count_every_image_once(tmp_path, hardness):
    report = made(hardness=hardness, images=77)
    page = html_page(written(report, tmp_path))
    for branch in ("pixel", "flow"):
        minimal = getattr(report.models[0], f"minimal_{branch}")
        start = page.index(f'aria-labelledby="{branch}-bars-0-title')
        chart = page[start : page.index("</svg>", start)]
        counts = [int(n) for n in re.findall(r'class="middle value"[^>]*>(\d+)<', chart)]
        stood = re.findall(r'class="bar stood"[^>]*><title>withstood [^:]*: (\d+) images', chart)
        bars = re.findall(r"<title>([\d.]+)[^<]* to ([\d.]+)[^<]*: (\d+) images", chart)
        held = [getattr(row, f"{branch}_radius") for row in report.models[0].images]
        sizes = np.array([size for size in held if size is not None])
        sizes = sizes * (255 if branch == "pixel" else 1)
        for low, high, count in bars:
            inside = (sizes > float(low) - 0.006) & (sizes <= float(high) + 0.006)
            assert int(count) <= inside.sum()
        assert sum(counts) == minimal.total
        assert sum(map(int, stood)) == minimal.total - minimal.found


def test_the_share_of_broken_images_ends_where_the_report_says(tmp_path):
    report = made(hardness=2.0, images=500)
    page = html_page(written(report, tmp_path))
    minimal = report.models[0].minimal_pixel
    start = page.index('aria-labelledby="pixel-ecdf-title')
    way = re.search(r'd="M([^"]*)"', page[start:]).group(1)
    ends = [float(point.split()[1]) for point in way.split("L")]
    assert ends == sorted(ends, reverse=True)
    floor, top = ends[0], 24.0
    assert (floor - ends[-1]) / (floor - top) == pytest.approx(minimal.found / 500, abs=0.11)
    expected = minimal.found / minimal.total
    assert (floor - ends[-1]) / (floor - top) == pytest.approx(expected, abs=1e-3)


def luminance(colour):
    levels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_the_cells_of_the_map_can_be_read_and_told_apart(tmp_path):
    cells = tuple(Rate.from_counts(k, 100) for k in range(101))
    model = made().models[0]
    row = Map("joint", {}, (0.3,), tuple(k / 255 for k in range(101)), (cells,))
    page = html_page(dataclasses.replace(made(), models=(dataclasses.replace(model, map=row),)))
    found = re.findall(r'fill="(#\w{6})"><title>[^<]*</title></rect><text[^>]*(on-\w+)">', page)
    grounds = [luminance(colour) for colour, _ in found]
    assert len(found) == 101
    assert grounds == sorted(grounds, reverse=True)
    for (_, ink), ground in zip(found, grounds, strict=True):
        contrast = (ground + 0.05) / 0.05 if ink == "on-light" else 1.05 / (ground + 0.05)
        assert contrast >= 4.5


def test_what_broke_the_images(tmp_path):
    report = made()
    read = Reader(html_page(written(report, tmp_path)))
    images = report.models[0].images
    table = read.rows[read.rows.index(["attack", "", "images", "first", "only"]) + 1 :]
    counts = {row[0]: [int(n) for n in row[2:] if n] for row in table[:7]}
    assert counts["already wrong"] == [sum(i.broken_by == "clean" for i in images)]
    assert counts["withstood all"] == [sum(i.broken_by is None for i in images)]
    for name in ("noise", "pgd", "flow", "joint", "rotate"):
        every = [i for i in images if name in i.broken]
        first = sum(i.broken_by == name for i in images)
        assert counts[name] == [len(every), first, sum(len(i.broken) == 1 for i in every)]
    firsts = sum(counts[name][1] for name in ("noise", "pgd", "flow", "joint", "rotate"))
    assert firsts + counts["already wrong"][0] + counts["withstood all"][0] == len(images)


def pictures(page):
    found = []
    for attributes in Reader(page).all("img"):
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        found.append((attributes["alt"], np.array(Image.open(io.BytesIO(data)))))
    return found


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 60, 20), (3, 224, 224)])
def test_the_pictures_are_those_of_the_gallery(tmp_path, shape):
    report = made(shape=shape)
    path = written(report, tmp_path)
    found = pictures(html_page(path))
    attack = shown_attack(report.models[0])
    with np.load(tmp_path / "gallery-0.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file}
    assert len(found) == 3 * len(report.models[0].gallery.images)
    for k in range(4):
        for name, (alt, image) in zip(
            ("clean", f"{attack}.delta", f"{attack}.adversarial"), found[3 * k :], strict=False
        ):
            values = arrays[name][k].astype(np.float64)
            levels = 255 * values if "delta" not in name else 127.5 + 127.5 * values / PIXEL
            expected = np.rint(np.clip(levels, 0, 255)).transpose(1, 2, 0).squeeze()
            np.testing.assert_array_equal(image, expected, err_msg=alt)


def test_the_arrows_are_the_flow_lengthened(tmp_path):
    report = made()
    page = html_page(written(report, tmp_path))
    factor = float(re.search(r"reads from, ([\d.]+) times", page).group(1))
    attack = shown_attack(report.models[0])
    with np.load(tmp_path / "gallery-0.npz", allow_pickle=False) as file:
        flow = file[f"{attack}.flow"][0].astype(float)
    way = re.search(r'<path d="(M[^"]*)" class="arrow"', page).group(1)
    shafts = re.findall(r"M([\d.]+) ([\d.]+)l(-?[\d.e-]+) (-?[\d.e-]+)m", way)
    assert len(shafts) > 100
    for x, y, dx, dy in shafts:
        vector = flow[:, int(float(y)), int(float(x))] * factor
        assert (float(dx), float(dy)) == pytest.approx(vector, abs=0.01)


def test_confidences_stand_beside_the_pictures(tmp_path):
    report = made(names={str(k): f"kind-{k}" for k in range(10)}, hardness=0.0)
    text = "".join(Reader(html_page(written(report, tmp_path))).text)
    broken = next(i for i in report.models[0].gallery.images if i.clean.prediction == i.label)
    right, wrong = f"kind-{broken.label}", f"kind-{(broken.label + 1) % 10}"
    assert f"✓ {right} >99.9%" in text
    assert f"✗ {wrong} 75.0%label 20.0%" in text
    assert "black \u22128/255, mid-grey none, white +8/255" in text


def test_the_strongest_joint_attack_is_shown():
    report = made(attacks=("noise", "pgd", "joint"))
    first = shown_attack(report.models[0])
    rows = [
        dataclasses.replace(row, gradients=0.0) if row.name == first else row
        for row in report.models[0].attacks
    ]
    second = shown_attack(dataclasses.replace(report.models[0], attacks=tuple(rows)))
    assert {first, second} == {"noise", "joint"}
    assert shown_attack(made(attacks=("pgd", "flow"), hardness=0.0).models[0]) == "pgd"
    assert shown_attack(made(attacks=()).models[0]) is None


def test_sanity_verdicts_and_their_numbers(tmp_path):
    report = made(models=("a", "b", "c"))
    text = "".join(Reader(html_page(written(report, tmp_path))).text)
    for words in ("✓ pass more steps are not weaker", "✗ FAIL the gradient is there", "3 against 4",
                  "skipped transfer is not stronger",
                  "Suspect: at least one check failed", "The checks were not run"):  # fmt: skip
        assert words in text


def test_what_it_takes_to_make_it_again(case):
    report, page = case
    text = "".join(Reader(page).text)
    for held in (report.plan_hash, "stat:1", "3.11", *(m.sha256 for m in report.models)):
        assert held in text


def test_transfer_stands_beside_the_direct_attack(tmp_path):
    report = made(models=("a", "b"))
    read = Reader(html_page(written(report, tmp_path)))
    start = read.rows.index(["made by", "a itself", "b"])
    for row in report.models[0].transfer:
        cells = next(r for r in read.rows[start:] if r[0] == row.attack)
        assert cells[1].startswith(f"{percent(row.direct.value)} {interval(row.direct)}")
        assert cells[2].startswith(f"{percent(row.accuracy.value)} {interval(row.accuracy)}")


def test_the_same_report_gives_the_same_bytes(tmp_path):
    path = written(made(models=("a", "b"), images=9), tmp_path)
    code = (
        "import sys, hashlib; from jataug.evaluation.report.html import html_page\n"
        "print(hashlib.sha256(html_page(sys.argv[1]).encode()).hexdigest())"
    )
    here = hashlib.sha256(html_page(path).encode()).hexdigest()
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=tmp_path, capture_output=True, text=True,
        check=True, env={"PYTHONHASHSEED": "77", "LANG": "C"},
    )  # fmt: skip
    assert run.stdout.strip() == here


def test_the_example(tmp_path):
    report = load_report(EXAMPLE)
    write_html(EXAMPLE, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page == html_page(EXAMPLE) == html_page(report, EXAMPLE.parent)
    assert len(pictures(page)) >= 3 * len(report.models[0].gallery.images)


def test_reports_of_the_same_images_stand_side_by_side(tmp_path):
    paths = [written(made(seed=k), tmp_path / str(k)) for k in range(2)]
    read = Reader(html_page(paths))
    assert row_of(read, "changes")[1:] == ["classifier", "classifier (2)"]
    text = "".join(read.text)
    assert "Report 2" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 41}, "the same images in all, got 40 and 41"),
        ({"pixel": {"radius": 0.1, "norm": "linf"}}, "the same pixel in all"),
        ({"measured": "uint8"}, "the same measured in all"),
        (
            {"source": {"kind": "npz", "fingerprint": "other"}},
            "the same images in all, got sources",
        ),
    ],
)
def test_reports_that_cannot_be_compared_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        html_page([made(), made(**change)])
    with pytest.raises(DataError, match="at least one"):
        html_page([])


def test_attacks_with_other_settings_are_other_attacks():
    first, second = made(models=("a",)), made(models=("b",))
    model = second.models[0]
    pgd = dataclasses.replace(model.attacks[1], parameters={"steps": 100, "restarts": 5})
    changed = dataclasses.replace(model, attacks=(pgd,))
    read = Reader(html_page([first, dataclasses.replace(second, models=(changed,))]))
    rows = [row for row in read.rows if row[0] == "pgd" and len(row) == 6]
    assert [(row[1] == "\u2013", row[2] == "\u2013", row[4]) for row in rows] == [
        (False, True, "20"),
        (True, False, "100"),
    ]


def test_pictures_that_are_not_there_are_said_to_be_missing():
    page = html_page(made())
    assert "gallery-0.npz, which was not beside the report" in page


def test_a_gallery_that_is_not_the_report_is_refused(tmp_path):
    path = written(made(), tmp_path)
    written(made(shape=(1, 14, 14)), tmp_path / "other")
    (tmp_path / "other" / "gallery-0.npz").replace(tmp_path / "gallery-0.npz")
    with pytest.raises(DataError, match=r"gallery-0\.npz: clean: expected the shape"):
        html_page(path)
    (tmp_path / "gallery-0.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="expected the pictures of a report"):
        html_page(path)


@pytest.mark.parametrize("name", ["../gallery-0.npz", "/etc/passwd", "a/b.npz"])
def test_pictures_come_from_beside_the_report_only(tmp_path, name):
    report = made()
    gallery = dataclasses.replace(report.models[0].gallery, file=name)
    model = dataclasses.replace(report.models[0], gallery=gallery)
    with pytest.raises(DataError, match="the name of a file beside the report"):
        html_page(dataclasses.replace(report, models=(model,)), tmp_path)


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "report.html"
    target.write_text("old")
    with pytest.raises(DataError):
        write_html(tmp_path / "none.json", target)
    assert target.read_text() == "old"
    with pytest.raises(DataError, match="could not be written"):
        write_html(made(), tmp_path / "none" / "report.html")


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.0, "0.0%"), (1.0, "100.0%"), (0.89843, "89.8%"), (0.99996, "99.996%"), (4e-5, "0.004%"),
     (0.0005, "0.1%"), (1 / 3, "33.3%")],
)  # fmt: skip
def test_percentages_look_like_certainty_only_where_they_are(share, shown):
    assert percent(share) == shown


def test_numbers_are_written_for_people():
    assert interval(Rate.from_counts(115, 128)) == "83.4\u201394.0%"
    assert radius(8 / 255, "image") == "8/255"
    assert radius(0.3, "pixels") == "0.3\u00a0px"
    shown = [duration(s).replace("\u00a0", " ") for s in (0.5214, 12.3, 59.7, 125, 3723, 7199.9)]
    assert shown == ["0.52 s", "12 s", "1 min 00 s", "2 min 05 s", "1 h 02 min", "2 h 00 min"]


@pytest.mark.parametrize("top", [1e-6, 0.07, 0.3, 1.0, 1.2, 7, 32, 55, 128, 3000])
def test_ticks_are_few_and_round(top):
    found = ticks(top)
    assert found[0] == 0
    assert 3 <= len(found) <= 7
    assert top * 0.7 < found[-1] <= top * (1 + 1e-9)
    step = found[1]
    lead = float(f"{step:.6e}"[:8])
    assert min(abs(lead - nice) for nice in (1, 2, 2.5, 5)) < 1e-6
