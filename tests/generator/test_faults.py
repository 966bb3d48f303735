"""What goes wrong in a run of days, really done: the message, and that nothing is lost by it."""

import io
import os
import re
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import call, finish, start, tree_hash, until
from onnx import TensorProto, helper
from PIL import Image

import jataug
from jataug.dataset import open_dataset, verify
from jataug.errors import DataError, RuntimeUnavailable
from jataug.generator import generate

FORMATS = ("folder", "npz", "tar", "parquet")


def run(session, source, destination, **options):
    options = {"batch_size": 2, "shard_size": 4, **options}
    return generate(None, source, destination, session=session, **options)


@contextmanager
def mounted(place: Path, size: str):
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        refused = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        refused = str(error)
    if refused:
        pytest.skip(f"needs the right to mount a small file system: {refused}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk(new_session, folder, tmp_path, files_of, format):
    run(new_session(), folder, tmp_path / "once", format=format, save_float=True)
    with mounted(tmp_path / "small", "56k"):
        out = tmp_path / "small" / "out"
        with pytest.raises(DataError, match=r"could not be written: .*No space left on device"):
            run(new_session(), folder, out, format=format, save_float=True)
        assert not (out / "index.json").exists()
        assert not (out / ".tmp").exists()
        larger = ["mount", "-o", "remount,size=4m", str(tmp_path / "small")]
        subprocess.run(larger, check=True)
        assert run(new_session(), folder, out, format=format, save_float=True).complete
        assert files_of(out) == files_of(tmp_path / "once")


def test_a_destination_that_is_read_only(new_session, folder, tmp_path):
    with mounted(tmp_path / "disk", "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises(DataError, match="out: could not be written: Read-only file system"):
            run(new_session(), folder, tmp_path / "disk" / "out")


def test_a_finished_data_set_on_a_read_only_disk_needs_nothing(new_session, folder, tmp_path):
    with mounted(tmp_path / "disk", "1m"):
        out = tmp_path / "disk" / "out"
        run(new_session(), folder, out)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert "nothing to do" in run(new_session(), folder, out).message


def test_what_a_killed_run_left_beside_a_finished_data_set_hinders_nobody(
    new_session, folder, tmp_path
):
    with mounted(tmp_path / "disk", "1m"):
        out = tmp_path / "disk" / "out"
        run(new_session(), folder, out)
        (out / "source.txt").write_text("left")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert "nothing to do" in run(new_session(), folder, out).message
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "disk")], check=True)
        assert "nothing to do" in run(new_session(), folder, out).message
        assert not (out / "source.txt").exists()


def when(done, act):
    """A progress function that acts once so many samples are done."""
    acted = []

    def progress(told):
        if told.done >= done and not acted:
            acted.append(told)
            act()

    return progress


def test_a_source_file_that_vanishes(new_session, folder, tmp_path, files_of):
    (folder / "eel" / "img 8.webp").rename(tmp_path / "aside")
    (tmp_path / "aside").rename(folder / "eel" / "img 8.webp")  # the same file, there when planned
    gone = when(0, (folder / "eel" / "img 8.webp").unlink)
    with pytest.raises(DataError, match=r"img 8\.webp: cannot be read: No such file"):
        run(new_session(), folder, tmp_path / "out", progress=gone)
    with pytest.raises(DataError, match=r"source count .* 11 to 10; .*'eel/img 8.webp' is gone"):
        run(new_session(), folder, tmp_path / "out")


def test_a_vanished_file_can_be_left_out(new_session, folder, tmp_path):
    gone = when(0, (folder / "eel" / "img 8.webp").unlink)
    report = run(new_session(), folder, tmp_path / "out", progress=gone, on_error="skip")
    assert [skip.key for skip in report.skipped] == ["eel/img 8"]
    assert (report.images, report.complete) == (10, True)


def test_a_source_file_that_changes_during_a_run(new_session, folder, tmp_path):
    file = folder / "eel" / "img 8.webp"
    with pytest.raises(DataError, match=r"img 8\.webp: .* changed since .*\d+ bytes"):
        run(
            new_session(), folder, tmp_path / "out",
            progress=when(0, lambda: Image.new("RGB", (12, 10)).save(file, lossless=True)),
        )  # fmt: skip
    assert not (tmp_path / "out" / "index.json").exists()


def test_an_archive_that_changes_during_a_run(new_session, npz, tmp_path):
    with pytest.raises(DataError, match=r"source\.npz: .* changed since"):
        run(new_session(), npz, tmp_path / "out", progress=when(0, npz.touch))


def test_files_that_change_between_two_runs_are_named(new_session, folder, tmp_path):
    class Stop(BaseException):
        pass

    def fail():
        raise Stop

    with pytest.raises(Stop):
        run(new_session(), folder, tmp_path / "out", progress=when(4, fail))
    (folder / "dog" / "img 1.jpg").touch()
    (folder / "cat" / "img 99.png").write_bytes((folder / "cat" / "img 0.png").read_bytes())
    with pytest.raises(DataError) as error:
        run(new_session(), folder, tmp_path / "out")
    assert "'cat/img 99.png' is new; 'dog/img 1.jpg' was changed" in str(error.value)


def tar_of(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for number, file in enumerate(sorted(folder.rglob("*.*"))):
            for name, data in (
                (f"{number:04d}{file.suffix}", file.read_bytes()),
                (f"{number:04d}.cls", str(number % 3).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def test_a_truncated_tar(new_session, folder, tmp_path):
    whole = tar_of(folder, tmp_path / "images.tar")
    assert run(new_session(), whole, tmp_path / "whole").images == 11
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2 - 100])
    with pytest.raises(DataError, match=r"cut\.tar: .*truncated"):
        run(new_session(), cut, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_corrupt_image_in_the_middle_of_a_tar(new_session, folder, tmp_path):
    file = folder / "dog" / "img 4.jpg"
    file.write_bytes(file.read_bytes()[:-60])
    source = tar_of(folder, tmp_path / "images.tar")
    with pytest.raises(DataError, match=r"images\.tar.*0006.*damaged.*--on-error skip"):
        run(new_session(), source, tmp_path / "out")
    report = run(new_session(), source, tmp_path / "out", on_error="skip")
    assert (report.images, len(report.skipped)) == (10, 1)
    assert verify(tmp_path / "out").ok


def test_two_processes(attacks, images, tmp_path):
    words = ("generate", attacks / "strong.onnx", images, tmp_path / "out", "--device", "cpu")
    words += ("--shard-size", "64", "--threads", "1")
    first = start(*words)
    until(lambda: list((tmp_path / "out" / ".tmp").glob("*.held")))
    code, said = call(*words)
    assert code == 2, said
    assert f"in use by process {first.pid} on " in said
    assert len(said.strip().splitlines()) == 1
    assert finish(first)[0] == 0
    assert verify(tmp_path / "out").images == 512


def test_a_worker_that_is_killed(attacks, images, tmp_path):
    words = ("generate", attacks / "strong.onnx", images, tmp_path / "out", "--device", "cpu")
    words += ("--shard-size", "64", "--threads", "1", "--workers", "2")
    words += ("--limit", "320")
    running = start(*words)
    until(lambda: list((tmp_path / "out" / "records").glob("*.json")))
    (victim,) = children(running.pid)[:1]
    os.kill(victim, 9)
    code, said = finish(running)
    assert code == 2, said
    assert f"(process {victim}) was killed by signal 9" in said
    assert "run the same command again" in said
    assert not (tmp_path / "out" / ".tmp").exists()
    assert call(*words)[0] == 0
    call(*words[:3], tmp_path / "once", *words[4:])
    assert tree_hash(tmp_path / "out") == tree_hash(tmp_path / "once")


def children(pid: int) -> list[int]:
    """The worker processes that Python started, without its own tracker of resources."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        pytest.skip("needs /proc to find the processes of the workers")
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in found
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def not_finite(path: Path) -> Path:
    """A classifier that says NaN where an image is black in its upper left corner."""
    starts, ends = (
        helper.make_tensor(name, TensorProto.INT64, [4], value)
        for name, value in (("starts", [0, 0, 0, 0]), ("ends", [2**31, 1, 1, 1]))
    )
    weights = np.random.default_rng(0).normal(size=(108, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Slice", ["image", "starts", "ends"], ["corner"]),
        helper.make_node("Flatten", ["corner"], ["level"]),
        helper.make_node("Div", ["level", "level"], ["one"]),  # 0 / 0
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["sum"]),
        helper.make_node("Mul", ["sum", "one"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [starts, ends, helper.make_tensor("weights", TensorProto.FLOAT, [108, 3], weights)],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_a_model_that_says_nan(tmp_path):
    from jataug.export import export_attack

    pixels = np.random.default_rng(1).integers(1, 256, (5, 6, 6, 3), np.uint8)
    pixels[3, :2, :2] = 0
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(5) % 3)
    model, attack = not_finite(tmp_path / "model.onnx"), tmp_path / "attack.onnx"
    config = jataug.AttackConfig(
        flow=jataug.FlowBudget(0), pixel=jataug.PixelBudget(0.0008), steps=2
    )
    export_attack(model, config, attack, check=False)
    words = ("generate", attack, tmp_path / "images.npz", tmp_path / "out", "--device", "cpu")
    code, said = call(*words)
    assert code == 0, said
    assert "1 failed" in said
    assert "00003: the model's logits are not finite; kept clean" in said
    samples = list(open_dataset(tmp_path / "out"))
    assert [sample.record["failed"] for sample in samples] == [False, False, False, True, False]
    assert samples[3].record["adversarial_prediction"] is None
    np.testing.assert_array_equal(samples[3].image, pixels[3])
    code, said = call("verify", tmp_path / "out")
    assert code == 0, said
    assert "failed: 1 images" in said


def test_an_image_without_clean_logits_is_no_success(tmp_path):
    """What the attack makes of such an image may well have logits."""
    from jataug.export import export_attack

    pixels = np.random.default_rng(1).integers(1, 256, (20, 6, 6, 3), np.uint8)
    pixels[:, :2, :2] = 0
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(20) % 3)
    model, attack = not_finite(tmp_path / "model.onnx"), tmp_path / "attack.onnx"
    export_attack(model, jataug.AttackConfig(pixel=jataug.PixelBudget(0.1)), attack, check=False)
    for labels in ("source", "predicted"):
        out = tmp_path / labels
        report = jataug.generate(attack, tmp_path / "images.npz", out, device="cpu", labels=labels)
        records = [sample.record for sample in open_dataset(out)]
        assert all(record["failed"] for record in records)
        assert not any(record["success"] for record in records)
        assert {record["adversarial_prediction"] for record in records} == {None}
        assert report.failed == jataug.verify(out).failed == 20
        assert report.adversarial_accuracy == 0


def short_of_memory(new_session, most, error):
    """Sessions as ONNX Runtime has them, on a device with memory for so many images at once."""
    opened = []

    def reopen(size):
        session = new_session()
        session.batch_size, session.close = size, lambda: None
        whole = session.attack

        def attack(images, labels, indices, **options):
            if size > most:
                raise error
            parts = [slice(k, k + size) for k in range(0, len(images), size)]
            results = [whole(images[p], labels[p], indices[p], **options) for p in parts]
            columns = zip(*(vars(result).values() for result in results), strict=True)
            return jataug.AttackResult(*map(np.concatenate, columns))

        session.attack = attack
        opened.append(size)
        return session

    return reopen, opened


MEMORY = [
    RuntimeError(
        "Error in execution: Non-zero status code returned while running Conv node. Name:'c' "
        "Status Message: bfc_arena.cc:360 Failed to allocate memory for requested buffer of size "
        "205520896"
    ),
    RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc(&p, size)"),
    RuntimeError("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0"),
    MemoryError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: str(error)[-12:])
def test_a_device_without_memory_enough(
    new_session, folder, tmp_path, monkeypatch, files_of, error
):
    from jataug.generator.open_session import Opening

    reopen, opened = short_of_memory(new_session, 2, error)
    monkeypatch.setattr(Opening, "open", lambda self, size=None: reopen(size or self.batch_size))
    told = []
    report = generate("attack.onnx", folder, tmp_path / "out", batch_size=8, progress=told.append)
    assert opened == [8, 4, 2]
    assert [note.split(";")[0] for note in report.notes] == [
        "out of memory on the device: the batch size is now 4 instead of 8",
        "out of memory on the device: the batch size is now 2 instead of 4",
    ]
    assert [progress.note for progress in told if progress.note] == list(report.notes)
    environment = open_dataset(tmp_path / "out").index["environments"][0]
    assert environment["reduced_batch"] == 2
    run(new_session(), folder, tmp_path / "once", batch_size=8, shard_size=1024)
    images = {k: v for k, v in files_of(tmp_path / "out").items() if k.endswith("png")}
    assert images.items() <= files_of(tmp_path / "once").items()


def test_a_device_without_memory_for_one_image(new_session, folder, tmp_path, monkeypatch):
    from jataug.generator.open_session import Opening

    reopen, opened = short_of_memory(new_session, 0, MEMORY[0])
    monkeypatch.setattr(Opening, "open", lambda self, size=None: reopen(size or self.batch_size))
    with pytest.raises(RuntimeUnavailable, match=r"with a batch of 1, .* another --device"):
        generate("attack.onnx", folder, tmp_path / "out", batch_size=4)
    assert opened == [4, 2, 1]


def test_other_errors_are_not_taken_for_want_of_memory(new_session, folder, tmp_path, monkeypatch):
    from jataug.generator.open_session import Opening

    reopen, opened = short_of_memory(new_session, 0, RuntimeError("Invalid argument"))
    monkeypatch.setattr(Opening, "open", lambda self, size=None: reopen(size or self.batch_size))
    with pytest.raises(RuntimeError, match="Invalid argument"):
        generate("attack.onnx", folder, tmp_path / "out", batch_size=4)
    assert opened == [4]


_LIMITED = """
import resource, sys
import onnx, onnxruntime, PIL.Image
from jataug.generator import generate
import jataug.generator.engines.local, jataug.runtime
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1200 * 2**20,) * 2)
report = generate(*sys.argv[1:], device="cpu", threads=1, batch_size=4096, limit=32)
print(report.complete, *report.notes, sep="\\n")
"""


@pytest.mark.heavy
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits memory so")
def test_memory_that_really_runs_out(attacks, images, tmp_path):
    words = [str(word) for word in (attacks / "weak.onnx", images, tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", _LIMITED, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *notes = done.stdout.splitlines()
    assert first == "True"
    assert notes
    sizes = [int(re.search(r"is now (\d+) instead", note)[1]) for note in notes]
    assert sizes == [4096 >> k for k in range(1, len(sizes) + 1)]
    index = open_dataset(tmp_path / "out").index
    assert index["environments"][0]["reduced_batch"] == sizes[-1]


@pytest.mark.parametrize("name", ["with spaces", "ünïcödé 猫", "-weird", "--shard", "a'b\"c"])
def test_paths_as_they_come(attacks, images, tmp_path, name):
    place = tmp_path / name
    place.mkdir()
    for file, of in (("attack.onnx", attacks / "weak.onnx"), ("images.npz", images)):
        (place / f"{name}{file}").write_bytes(of.read_bytes())
    names = (f"{name}attack.onnx", f"{name}images.npz", name)
    options = ("--limit", "4", "--batch-size", "4", "--device", "cpu")
    command = [sys.executable, "-c", "from jataug.cli import main; main()"]
    for words in (("generate", *options, "--", *names), ("verify", "--", name)):
        done = subprocess.run([*command, *words], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert verify(place / name).images == 4
