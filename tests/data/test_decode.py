import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jataug.data import open_source
from jataug.data.readers.decode import MAX_PIXELS, decode
from jataug.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def read(data):
    return decode(io.BytesIO(data), "cat/7.png")


def refused(data):
    with pytest.raises(DataError, match=r"^cat/7\.png: expected ") as error:
        read(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def png(width, height, depth, colour):
    def chunk(name, body):
        whole = name + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    size = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = (b"\0" + bytes(width * 6)) * min(height, 4)
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + body


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_rgb_comes_back_as_it_was(format, options):
    np.testing.assert_array_equal(read(saved(Image.fromarray(PIXELS), format, **options)), PIXELS)


def test_grey_has_one_channel():
    np.testing.assert_array_equal(read(saved(Image.fromarray(PIXELS[:, :, 0]))), PIXELS[:, :, :1])


def test_one_bit_images_become_black_and_white():
    image = read(saved(Image.fromarray(PIXELS[:, :, 0] > 100)))
    np.testing.assert_array_equal(image[:, :, 0], 255 * (PIXELS[:, :, 0] > 100))


def test_the_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    image = read(saved(Image.fromarray(PIXELS), exif=exif))
    np.testing.assert_array_equal(image, np.rot90(PIXELS, -1))


def test_a_palette_becomes_rgb():
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(read(saved(palette)), np.array(palette.convert("RGB")))


def test_an_opaque_alpha_channel_is_dropped():
    image = Image.fromarray(PIXELS)
    image.putalpha(255)
    np.testing.assert_array_equal(read(saved(image)), PIXELS)
    grey = Image.fromarray(PIXELS[:, :, 0])
    grey.putalpha(255)
    np.testing.assert_array_equal(read(saved(grey)), PIXELS[:, :, :1])


def test_transparent_pixels_are_refused():
    image = Image.fromarray(PIXELS)
    image.putalpha(254)
    assert "transparent" in refused(saved(image))
    palette = Image.fromarray(PIXELS).quantize(16)
    assert "transparent" in refused(saved(palette, transparency=3))


@pytest.mark.parametrize("colour", [0, 2])
def test_16_bits_are_refused(colour):
    assert "16-bit" in refused(png(2, 2, 16, colour))


def test_cmyk_is_refused():
    assert "CMYK" in refused(saved(Image.new("CMYK", (4, 4)), "JPEG"))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_animations_are_refused(format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    assert "an animation of 3 frames" in refused(data)


def test_a_phone_photo_with_a_second_picture_inside_is_its_first():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert read(data)[0, 0, 0] > 250


def test_an_empty_file_is_refused():
    assert "empty file" in refused(b"")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_truncated_files_are_refused(format, keep):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), format)
    refused(data[: int(len(data) * keep)])


def test_damaged_pixels_are_refused():
    data = bytearray(saved(Image.fromarray(PIXELS)))
    data[len(data) // 2] ^= 0xFF
    refused(bytes(data))


@pytest.mark.parametrize("data", [b"GIF89a" + bytes(40), b"not an image at all"])
def test_other_files_are_refused(data):
    assert "PNG, JPEG or WebP" in refused(data)


def test_a_decompression_bomb_is_refused():
    assert f"at most {MAX_PIXELS} pixels" in refused(png(30000, 30000, 8, 2))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_small_bomb_is_refused_without_being_decoded():
    assert f"at most {MAX_PIXELS} pixels" in refused(png(10000, 10000, 8, 2))


def test_a_source_names_the_file_that_it_cannot_read(tmp_path: Path):
    (tmp_path / "ä -b.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"ä -b\.png: expected a PNG"):
        open_source(tmp_path)[0]
