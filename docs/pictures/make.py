"""Make the pictures of docs/pictures.md from the classifier and images that ship in the package.

    python docs/pictures/make.py [FOLDER]

One image, attacked with the preset "evaluation".
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import jataug
from jataug.drawing import (
    arrows,
    confidence,
    font_for,
    full_scale,
    lengthening,
    perturbation,
    picture,
)
from jataug.export import export_attack
from jataug.units import radius_255
from jataug.warp import warp

DEMO = Path(jataug.__file__).parent / "demo"
CHOSEN = 9  # of the 512: a sneaker, whose edges and stripes show what a flow does
FLOWS, PIXELS = (0, 0.3, 1, 2), (0, 4, 8, 16)  # pixels; levels of 8 bits
INK, FAINT, RED, BLUE, LINE = "#1b1b1b", "#6b6b6b", "#b3261e", "#1f5fbf", "#b8bec9"
SIDE, GAP, MARGIN, TEXT = 168, 14, 16, 40


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    classes = json.loads((DEMO / "demo.json").read_text(encoding="utf-8"))["classes"]
    with np.load(DEMO / "images.npz") as arrays:
        image, label = arrays["images"][CHOSEN][None, :, :, None], arrays["labels"][[CHOSEN]]
    with session() as attack:
        pictures = {
            "steps.png": steps(attack, image, label, classes),
            "budgets.png": budgets(attack, image, label, classes),
            "radii.png": radii(image[0]),
            "levels.png": levels(image[0]),
        }
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in pictures.items():
        made.save(folder / name, optimize=True)
        print(f"{folder / name}: {made.width} x {made.height}")


def session() -> jataug.Session:
    """The attack on the shipped classifier, for flows of up to 2 pixels."""
    config = jataug.AttackConfig.preset(
        "evaluation", flow=jataug.FlowBudget(0.3), pixel=jataug.PixelBudget("8/255"), steps=20
    )
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "attack.onnx"
        export_attack(DEMO / "classifier.onnx", config, path, max_flow=max(FLOWS))
        return jataug.Session.open(path, device="cpu", threads=1)


def steps(attack, image, label, classes):
    """The parts of one attack, in the order in which they are put together."""
    found = attack.attack(image, label, flow=1, pixel="8/255")
    flow, delta = found.flow[0], found.delta[0]
    planes = image.transpose(0, 3, 1, 2).astype(np.float32) / 255
    warped = np.rint(255 * warp(planes, found.flow)[0]).astype(np.uint8).transpose(1, 2, 0)
    size, stretch, full = (SIDE, SIDE), lengthening([flow]), full_scale([delta])
    longest = float(np.hypot(*flow.astype(np.float64)).max())
    panels = [
        (picture(image[0], size), "x: the image", said(attack, image, classes, label)),
        (
            arrows(image[0], flow, stretch, size),
            f"w: the flow, x{stretch:g}",
            longest_line(longest),
        ),
        (picture(warped, size), "T(x, w): warped", said(attack, warped[None], classes, label)),
        (picture(perturbation(delta, full), size), "d: the perturbation", scale_line(full)),
        (
            picture(found.adversarial[0], size),
            "clip(T(x, w) + d)",
            said(attack, found.adversarial, classes, label),
        ),
    ]
    return row(panels)


def longest_line(longest):
    return f"longest vector {longest:.2f} px", FAINT


def scale_line(full):
    return f"black to white: +-{radius_255(full)}", FAINT


def said(attack, images, classes, label):
    """What the model says, and its colour: red where it is wrong."""
    logits = attack.predict(images)[0].astype(np.float64)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    best = int(shares.argmax())
    return f"{classes[best]}, {confidence(float(shares[best]))}", INK if best == label[0] else RED


def row(panels):
    """Panels beside each other, each with a name above and a line below."""
    width = 2 * MARGIN + len(panels) * (SIDE + GAP) - GAP
    page = Image.new("RGB", (width, MARGIN + 22 + SIDE + TEXT), "white")
    for number, (panel, name, (line, ink)) in enumerate(panels):
        left = MARGIN + number * (SIDE + GAP)
        write(page, (left, MARGIN - 4), name, 15)
        page.paste(panel, (left, MARGIN + 22))
        write(page, (left, MARGIN + 22 + SIDE + 4), line, 13, ink)
    return page


def budgets(attack, image, label, classes):
    """The image as attacked with each pair of budgets, flow to the right, pixels downwards."""
    left, top = 90, 46
    page = Image.new(
        "RGB",
        (left + len(FLOWS) * (SIDE + GAP) + 2, top + len(PIXELS) * (SIDE + TEXT) - 8),
        "white",
    )
    write(page, (left, 8), "flow budget, pixels of the image; to the right", 13, FAINT)
    for column, flow in enumerate(FLOWS):
        write(page, (left + column * (SIDE + GAP), top - 20), f"{flow:g} px", 15)
    for line, levels_ in enumerate(PIXELS):
        y = top + line * (SIDE + TEXT)
        write(page, (16, y + SIDE // 2 - 10), f"{levels_}/255", 15)
        for column, flow in enumerate(FLOWS):
            found = attack.attack(image, label, flow=flow, pixel=f"{levels_}/255")
            x = left + column * (SIDE + GAP)
            page.paste(picture(found.adversarial[0], (SIDE, SIDE)), (x, y))
            text, ink = said(attack, found.adversarial, classes, label)
            write(page, (x, y + SIDE + 3), text, 13, ink)
    return page


def radii(image):
    """A few pixels, enlarged, and the circles in which a flow may choose where a pixel reads."""
    rows, columns, large = slice(10, 15), slice(8, 17), 96
    part = image[rows, columns]
    page = picture(part, (large * part.shape[1], large * part.shape[0]))
    page = Image.blend(page, Image.new("RGB", page.size, "white"), 0.45)
    pen = ImageDraw.Draw(page)
    for x in range(0, page.width + 1, large):
        pen.line([(x, 0), (x, page.height)], fill=LINE)
    for y in range(0, page.height + 1, large):
        pen.line([(0, y), (page.width, y)], fill=LINE)
    for radius, column, ink in ((0.3, 1, RED), (1, 3, BLUE), (2, 6, INK)):
        centre = ((column + 0.5) * large, 2.5 * large)
        circle(pen, centre, radius * large, ink)
        pen.ellipse([centre[0] - 4, centre[1] - 4, centre[0] + 4, centre[1] + 4], fill=ink)
        write(page, (centre[0] - 18, centre[1] + radius * large + 4), f"{radius:g} px", 17, ink)
    return page


def circle(pen, centre, radius, ink):
    box = [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]
    pen.ellipse(box, outline=ink, width=3)


def levels(image):
    """A strip of the image as it is, and one that is lighter and darker by each budget in turns."""
    large, strips = 20, Image.new("RGB", (2 * MARGIN + 28 * 20 + 90, 24), "white")
    part = image[12:16].astype(int)
    page = Image.new("RGB", (strips.width, MARGIN + len(PIXELS) * (4 * large + 12)), "white")
    turns = np.where((np.add(*np.indices(part.shape[:2])) // 2) % 2, 1, -1)[:, :, None]
    for line, budget in enumerate(PIXELS):
        moved = np.clip(part + turns * budget, 0, 255).astype(np.uint8)
        y = MARGIN + line * (4 * large + 12)
        page.paste(picture(moved, (28 * large, 4 * large)), (90, y))
        write(page, (16, y + 28), f"{budget}/255", 15)
    return page


def write(page, place, text, size, ink=INK):
    font, text = font_for(text, size)
    ImageDraw.Draw(page).text(place, text, fill=ink, font=font)


if __name__ == "__main__":
    main()
