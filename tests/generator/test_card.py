import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from jataug.budget import FlowBudget, PixelBudget
from jataug.dataset import verify
from jataug.dataset.card import card, export_command, generate_command
from jataug.generator import generate
from jataug.preprocessing import Preprocessing


def made(session, source, destination, **options):
    options = {"batch_size": 4, "shard_size": 8, **options}
    generate(None, source, destination, session=session, **options)
    return (destination / "README.md").read_text("utf-8")


def head(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize(
    ("format", "path"),
    [
        ("folder", "images/**/*.png"),
        ("npz", "records/*.jsonl"),
        ("tar", "images/*.tar"),
        ("parquet", "images/*.parquet"),
    ],
)
def test_the_head_says_what_to_load(session, folder, tmp_path, format, path):
    found = head(made(session, folder, tmp_path / "out", format=format))
    assert found["configs"][0]["data_files"] == [{"split": "train", "path": path}]
    assert found["task_categories"] == ["image-classification"]
    assert found["size_categories"] == ["n<1K"]
    assert found["configs"][0].get("drop_labels") == (False if format == "folder" else None)


def test_class_folders_of_folders_are_no_labels(session, folder, tmp_path):
    (folder / "cat" / "kitten").mkdir()
    (folder / "cat" / "img 0.png").rename(folder / "cat" / "kitten" / "img 0.png")
    assert head(made(session, folder, tmp_path / "out"))["configs"][0]["drop_labels"] is True


def test_numbers_are_those_of_the_index(session, folder, tmp_path):
    text = made(session, folder, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert f"| accuracy before | {100 * index['clean_accuracy']:.2f}% |" in text
    assert f"| accuracy after | {100 * index['adversarial_accuracy']:.2f}% |" in text
    assert "| images | 11 |" in text
    assert "| pixel budget | 8/255 = 0.0313725 for" in text
    assert "| flow budget | 0.4 pixels, the length of every vector |" in text
    assert "0 cat, 1 dog, 2 eel" in text
    config = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert json.loads(config[1]) == index["plan"]["attack"]
    assert index["plan"]["artifact"] in text


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({"flow": FlowBudget(0)}, "| flow budget | none |", "the flow moves"),
        ({"pixel": PixelBudget(0)}, "| pixel budget | none |", "the perturbation changes"),
        ({"pixel": PixelBudget(0.5, "l2")}, "0.5 in the l2 norm", "/255 ="),
        ({"flow": FlowBudget(1, "linf")}, "each component of every vector", "the length"),
        ({"simultaneous": True}, "both from one gradient", "the flow before"),
        ({"keep": "best"}, "the best iterate of each image", "the last iterate"),
        ({"start": "zero"}, "begun at zero", "random points"),
        ({"redraw_targets": True}, "drawn anew in every iteration", "no such words"),
    ],
)
def test_words_for_the_attack(new_session, folder, tmp_path, options, present, absent):
    config = new_session().config.replace(**options)
    text = made(new_session(config=config), folder, tmp_path / "out", limit=4)
    assert present in text
    assert absent not in text


@pytest.mark.parametrize("flow", [0, 0.4])
@pytest.mark.parametrize("save_float", [False, True])
def test_the_level_that_a_radius_reaches(new_session, folder, tmp_path, flow, save_float):
    """0.0049 is 1.25/255; generate, verify and the card say what is left of it."""
    config = new_session().config.replace(pixel=PixelBudget(0.0049), flow=FlowBudget(flow))
    out, session = tmp_path / "out", new_session(config=config)
    report = generate(
        None, folder, out, session=session, batch_size=4, limit=4, save_float=save_float
    )
    (said,) = report.warnings
    assert "a pixel radius of 1.2495/255 reaches 1/255 in 8-bit images" in said
    assert ("elsewhere" in said) == bool(flow)
    assert ("(--save-float)" in said) != save_float
    assert verify(out).level_note == said
    assert said[1:] in (out / "README.md").read_text("utf-8")


@pytest.mark.parametrize("pixel", [PixelBudget(0), PixelBudget("8/255"), PixelBudget(0.3, "l2")])
def test_whole_levels_need_no_word(new_session, folder, tmp_path, pixel):
    session = new_session(config=new_session().config.replace(pixel=pixel))
    report = generate(None, folder, tmp_path / "out", session=session, batch_size=4, limit=4)
    assert report.warnings == ()
    assert verify(tmp_path / "out").level_note == ""
    assert "8-bit images" not in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_what_was_left_out_is_told(session, folder, tmp_path):
    (folder / "cat" / "img 3.png").write_bytes(b"")
    text = made(session, folder, tmp_path / "out", on_error="skip")
    assert "| left out, could not be used | 1 |" in text
    assert "--on-error skip" in text


def test_the_commands(session, folder, tmp_path):
    options = {"format": "tar", "seed": 3, "labels": "predicted", "crop": (10, 12), "limit": 9}
    text = made(session, folder, tmp_path / "out", **options)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    command = generate_command(index).replace(" \\\n   ", "")
    assert command == (
        "jataug generate attack.onnx source out --format tar --seed 3 --batch-size 4 "
        "--shard-size 8 --labels predicted --crop 10,12 --limit 9"
    )
    assert generate_command(index) in text
    assert "--pixel 8/255" in export_command(index["plan"]["attack"])
    assert "(model options, such as `--mean`, are not known here)" in text


def test_the_model_options_are_in_the_command_where_they_are_known(new_session):
    prepared = Preprocessing(mean=(127.5,), scale=255, channels="bgr")
    command = export_command(new_session().config.to_dict(), prepared.to_dict())
    assert command.endswith("--mean 127.5 \\\n    --scale 255 \\\n    --channels bgr")


def test_a_mapping_of_classes_is_in_the_card(session, npz, tmp_path):
    text = made(session, npz, tmp_path / "out", classes={"zebra": 0, "ape": 1, "newt": 2})
    assert "--classes class_labels.json" in text
    listed = re.search(r"class_labels\.json is\n\n```json\n(.*?)\n```", text, re.DOTALL)
    assert json.loads(listed[1]) == {"zebra": 0, "ape": 1, "newt": 2}


def test_odd_names_do_not_break_the_head(session, folder, tmp_path):
    odd = folder.rename(folder.with_name('a "b": {c}\' $(x)'))
    text = made(session, odd, tmp_path / "out")
    assert head(text)["pretty_name"] == 'Adversarial images of a "b": {c}\' $(x)'
    import shlex

    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert odd.name in shlex.split(generate_command(index))


def test_the_picture_shows_what_is_stored(session, folder, tmp_path):
    made(session, folder, tmp_path / "out")
    with Image.open(tmp_path / "out" / "preview.png") as picture:
        pixels = np.array(picture.convert("RGB"))
    first = np.array(Image.open(tmp_path / "out" / "images" / "cat" / "img 0.png"))
    # Shown enlarged to 168 x 140, in the last of four columns.
    panel = pixels[46 : 46 + 140 : 14, 20 + 3 * 182 : 20 + 3 * 182 + 168 : 14]
    np.testing.assert_array_equal(panel, first)


def test_a_card_without_a_picture(session, folder, tmp_path):
    made(session, folder, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert "preview.png" in card(index, picture=True, class_folders=True)
    assert "preview.png" not in card(index, picture=False, class_folders=True)


def test_skipped_samples_are_not_in_the_picture(session, folder, tmp_path):
    (folder / "cat" / "img 0.png").write_bytes(b"")
    made(session, folder, tmp_path / "out", on_error="skip")
    with Image.open(tmp_path / "out" / "preview.png") as picture:
        three = picture.height
    made(session, folder, tmp_path / "dogs", limit=11, on_error="skip", seed=1)
    (folder / "cat" / "img 0.png").write_bytes((folder / "cat" / "img 3.png").read_bytes())
    made(session, folder, tmp_path / "all", on_error="skip")
    with Image.open(tmp_path / "all" / "preview.png") as picture:
        assert picture.height > three
