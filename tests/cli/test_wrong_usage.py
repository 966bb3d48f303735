"""Wrong usage, in one line each: arguments out of order, options that are none, TOML files."""

import shlex
import shutil
from pathlib import Path

import pytest
from commands import refused
from PIL import Image

import jataug

DEMO = Path(jataug.__file__).parent / "demo"


@pytest.fixture
def place(artifact, images, tmp_path, monkeypatch):
    """A folder with an attack, a model, images, an empty folder and a data set that is whole."""
    for name, file in (("attack.onnx", artifact), ("images.npz", images)):
        shutil.copy(file, tmp_path / name)
    shutil.copy(DEMO / "classifier.onnx", tmp_path / "model.onnx")
    for name in ("photos", "empty"):
        (tmp_path / name).mkdir()
    Image.new("L", (28, 28)).save(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


ORDER = "the order is jataug generate ATTACK SOURCE DESTINATION"
MISUSED = {
    "generate photos attack.onnx out": ["photos: expected ATTACK", "a folder of images", ORDER],
    "generate images.npz attack.onnx out": ["images.npz: expected ATTACK", "of images", ORDER],
    "generate attack.onnx photos": ["got attack.onnx photos: DESTINATION missing", "--help"],
    "generate attack.onnx attack.onnx photos out": ["one ATTACK", "once for each"],
    "generate attack.onnx": ["SOURCE and DESTINATION missing"],
    "generate model.onnx photos out": ["without a manifest", "jataug export model.onnx -o"],
    "generate attack.onnx model.onnx out": ["expected SOURCE to be images", "an ONNX model"],
    "preview photos attack.onnx -o a.png": ["the order is jataug preview ATTACK SOURCE"],
    "export attack.onnx -o b.onnx": ["got an attack artifact", "the model that it was made from"],
    "export images.npz -o b.onnx": ["got a file of images", ".onnx file"],
    "differentiate attack.onnx -o b.onnx": ["got an attack artifact", "was made from"],
    "evaluate attack.onnx images.npz -o ev": ["attack.onnx: expected MODEL", "was made from"],
    "evaluate images.npz model.onnx -o ev": ["the order is jataug evaluate MODEL... SOURCE"],
    "evaluate model.onnx attack.onnx -o ev": ["expected SOURCE", "got an attack artifact"],
    "verify nothing": ["expected DESTINATION to be a data set", "nothing there", "the path"],
    "verify empty": ["got an empty folder", "jataug generate ATTACK SOURCE DESTINATION"],
    "verify photos": ["got a folder of images", "jataug generate ATTACK SOURCE DESTINATION"],
    "verify attack.onnx": ["got an attack artifact"],
    "inspect nothing": ["an attack artifact, a model or a data set", "nothing there", "the path"],
    "inspect empty": ["got an empty folder", "check the path"],
    "inspect photos": ["got a folder of images", "SOURCE"],
    "runtimes photos": ["expected ATTACK", "got a folder of images", "jataug export"],
    "train attack.onnx -o run": ["expected SOURCE to be images", "got an attack artifact"],
    "export model.onnx -o b.onnx --mean 0.5 0.4 0.3": ["0.485,0.456,0.406", "got 0.4 after"],
    "evaluate model.onnx images.npz -o ev --std 0.5 0.4 0.3": ["0.485,0.456,0.406", "got 0.4"],
    "generate attack.onnx photos out --resize 28,28": ["shorter side", "--crop 28,28"],
}


@pytest.mark.parametrize("typed", MISUSED)
def test_arguments_of_another_kind_or_order(run, place, typed):
    before = {path.name for path in place.iterdir()}
    result = run(*typed.split())
    refused(result, *MISUSED[typed])
    one = [line for line in result.output.splitlines() if line.strip()]
    assert len(one) == 1, result.output
    assert {path.name for path in place.iterdir()} == before


USAGE = {
    "verify a b": ["expected jataug verify DESTINATION, got b besides", "quote a path"],
    "evaluate model.onnx images.npz": ["Missing option '-o'", "jataug evaluate --help"],
    "evaluate model.onnx -o ev": ["at least one MODEL", "SOURCE"],
    "verify a 'photos (1)'": ["got photos (1) besides"],
    "verify a --frobnicate": ["no such option --frobnicate", "jataug verify --help"],
    "verify a --thread 3": [
        "no such option --thread, did you mean --threads?",
        "jataug verify --help",
    ],
    "verify a --threads many": ["--threads", "'many'", "jataug verify --help"],
    "--frobnicate": ["no such option --frobnicate", "jataug --help"],
    "--": ["Missing command", "jataug --help"],
    "xyz": ["no such command 'xyz'", "commands are export, differentiate,"],
    "exprot model.onnx": ["no such command 'exprot'", "did you mean export?"],
}


@pytest.mark.parametrize("typed", USAGE)
def test_wrong_usage_is_one_line_too(run, typed):
    result = run(*shlex.split(typed))
    refused(result, *USAGE[typed])
    assert len(result.output.splitlines()) == 1, result.output


def test_config_files(run, tmp_path):
    words = ("export", DEMO / "classifier.onnx", "-o", tmp_path / "a.onnx", "--config")
    refused(run(*words, tmp_path / "none.toml"), "none.toml: cannot be read")
    (tmp_path / "bad.toml").write_text("[export\n")
    refused(run(*words, tmp_path / "bad.toml"), "bad.toml")
    (tmp_path / "unknown.toml").write_text("[export]\nstep = 3\n")
    refused(run(*words, tmp_path / "unknown.toml"), "'step'")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no-check = 1", "no-check: expected true or false, got 1"),
        ("no-check = 'yes'", "no-check: expected true or false"),
        ("output = 3", "output: expected a path as a string, got 3"),
        ("output = ['a', 'b']", "output: expected one value"),
        ("steps = 1.5", "'1.5' is not a valid integer"),
        ("steps = true", "steps: expected a string, a number, or a list of them, got True"),
        ("steps = [1]", "steps: expected one value"),
        ("flow = inf", "flow radius: expected"),
        ("mean = {a = 1}", "mean: expected a string, a number, or a list of them"),
        ("mean = [[1]]", "mean: expected a string, a number, or a list of them"),
        ("size = 1979-05-27", "size: expected a string, a number, or a list of them"),
        ("size = inf", "--size"),
        ("size = ['a', 1]", "--size"),
    ],
)
def test_a_config_of_other_types(run, tmp_path, line, words):
    (tmp_path / "c.toml").write_text(f"[export]\n{line}\n")
    given = () if line.startswith("output") else ("-o", tmp_path / "a.onnx")
    refused(run("export", DEMO / "classifier.onnx", *given, "--config", tmp_path / "c.toml"), words)
    assert not (tmp_path / "a.onnx").exists()


def test_a_config_of_numbers_and_lists(run, tmp_path):
    (tmp_path / "c.toml").write_text(
        "[export]\nsteps = 1\nflow = 0.2\nmean = [0.5]\nstd = 0.5\nno-check = true\n"
    )
    result = run(
        "export",
        DEMO / "classifier.onnx",
        "-o",
        tmp_path / "a.onnx",
        "--config",
        tmp_path / "c.toml",
    )
    assert result.exit_code == 0, result.output
    assert "--mean 0.5 --std 0.5" in result.output


def test_a_config_without_its_table(run, tmp_path):
    (tmp_path / "c.toml").write_text("inspect = 5\n")
    result = run("inspect", DEMO / "classifier.onnx", "--config", tmp_path / "c.toml")
    refused(result, "table [inspect]")
