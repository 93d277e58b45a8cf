import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from flax_resnet.data.image_files import read_image, resize_and_crop
from flax_resnet.process.errors import UserError


def _gradient(height=6, width=9):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 40, columns * 25, (rows + columns) * 15], axis=-1).astype(np.uint8)


def _refused(path):
    with pytest.raises(UserError) as caught:
        read_image(path)
    error = caught.value
    assert (error.code, error.field) == ("unreadable", str(path))
    assert str(path) in str(error) and "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff"])
def test_rgb_pixels_are_kept_exactly(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_gradient()).save(path)
    image = read_image(str(path))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, _gradient())


def test_webp_and_jpeg_are_close(tmp_path):
    for suffix in ("webp", "jpg"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(np.full((16, 16, 3), (200, 100, 50), np.uint8)).save(path, quality=95)
        assert np.abs(read_image(path).astype(int) - (200, 100, 50)).max() < 12


def test_grey_and_one_bit_become_three_equal_channels(tmp_path):
    grey = np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, -1))
    Image.fromarray(grey > 100).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "bit.png")[..., 1], np.where(grey > 100, 255, 0)
    )


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, suffix):
    deep = np.array([[0, 257, 128 * 257], [200 * 257, 65535, 65535 // 3]], np.uint16)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(deep).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 0], [[0, 1, 128], [200, 255, 85]])


def test_32_bit_grey_is_scaled_by_its_range(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "unit.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "unit.tiff")[0, :, 0], [0, 128, 255])
    Image.fromarray(np.array([[0.0, 100.0, 255.0]], np.float32)).save(tmp_path / "byte.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "byte.tiff")[0, :, 0], [0, 100, 255])
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(tmp_path / "nan.tiff")
    assert "nan" in _refused(tmp_path / "nan.tiff")
    Image.fromarray(np.array([[-5, 7]], np.int32)).save(tmp_path / "negative.tiff")
    assert "-5" in _refused(tmp_path / "negative.tiff")


def test_16_bit_rgb_is_scaled(tmp_path):
    # Pillow cannot write 16-bit RGB, so the PNG is put together by hand: one pixel.
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8080, 0x0101)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixel))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_image(path), [[[255, 128, 1]]])


def test_alpha_is_laid_on_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [0, 255, 128]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image[0, :2], [[255, 255, 255], [200, 0, 0]])
    np.testing.assert_allclose(image[0, 2], [227, 127, 127], atol=1)
    Image.fromarray(rgba[..., [0, 3]], "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[0, :2, 2], [255, 200])


def test_palette_becomes_its_colours_and_its_transparent_entry_white(tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    palette = palette.convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.putdata([0, 1, 2])
    palette.save(tmp_path / "plain.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "plain.png")[0], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    )
    palette.save(tmp_path / "clear.png", transparency=1)
    np.testing.assert_array_equal(
        read_image(tmp_path / "clear.png")[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]]
    )


def test_cmyk_and_lab_become_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    red = read_image(tmp_path / "red.jpg")[4, 4]
    assert red[0] > 230 and red[1] < 60 and red[2] < 60
    Image.new("LAB", (2, 2), (255, 128, 128)).save(tmp_path / "white.tiff")
    assert read_image(tmp_path / "white.tiff").min() > 245


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    Image.fromarray(_gradient()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png"), np.rot90(_gradient(), k=-1, axes=(0, 1))
    )


def test_an_exif_header_that_is_none_leaves_the_image_as_it_is(tmp_path):
    Image.fromarray(_gradient()).save(tmp_path / "a.jpg", exif=b"Exif\0\0no header")
    Image.fromarray(_gradient()).save(tmp_path / "b.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), read_image(tmp_path / "b.jpg"))


def test_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for suffix in ("gif", "png"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(read_image(path)[0, 0], [255, 0, 0])


def test_files_that_are_no_images_are_refused_by_name(tmp_path):
    _refused(tmp_path / "missing.png")
    _refused(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "0 bytes" in _refused(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("not an image\nat all")
    _refused(tmp_path / "text.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    _refused(tmp_path / "loop.png")


def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    _refused(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    _refused(tmp_path / "zero.png")


def test_a_file_too_large_for_an_image_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.fromarray(_gradient()).save(path)
    with path.open("r+b") as file:
        file.truncate(2 << 30)  # sparse: takes no space on disk
    monkeypatch.setattr(Image, "open", pytest.fail)
    assert "2,147 MB" in _refused(path)


def test_a_file_name_is_shown_without_its_control_characters(tmp_path):
    with pytest.raises(UserError) as caught:
        read_image(tmp_path / "a\x1b[31m\nb.png")
    assert str(caught.value).isprintable() and "a\\x1b[31m\\nb.png" in str(caught.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_images_are_refused_by_name(tmp_path, format):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format)
    path = tmp_path / "cut.img"
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    _refused(path)


def test_damaged_png_is_refused_by_name(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(_gradient(64, 64)).save(path)
    content = bytearray(path.read_bytes())
    for position in range(60, len(content) - 20, 7):
        content[position] ^= 0xFF
    path.write_bytes(content)
    _refused(path)


def test_decompression_bomb_is_refused_before_it_unpacks(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    assert "20,000 x 20,000" in _refused(path) or "400000000" in _refused(path)


def test_a_jpeg_of_a_thousand_passes_is_refused_at_once(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(_gradient(64, 64)).save(path, progressive=True)
    content = path.read_bytes()
    assert read_image(path).shape == (64, 64, 3)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + 1000 * last_scan + content[-2:])
    assert "1,010 scans" in _refused(path)


def test_a_header_that_claims_more_than_max_pixels_is_refused_at_once(tmp_path):
    path = tmp_path / "a.bmp"
    Image.new("RGB", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<ii", content, 18, 8192, 8193)
    path.write_bytes(content)
    assert "8,192 x 8,193" in _refused(path)


def test_resize_keeps_an_image_of_the_right_size():
    image = np.random.RandomState(0).randint(0, 256, (8, 6, 3)).astype(np.uint8)
    assert resize_and_crop(image, 8, 6) is image


@pytest.mark.parametrize("height, width", [(10, 10), (10, 5), (5, 10)])
def test_resize_crops_the_middle_of_the_side_that_is_too_long(height, width):
    columns = np.zeros((10, 30, 3), np.uint8)
    columns[:, 5:25] = 200  # twice as wide as high
    for image, shape in ((columns, (height, width)), (columns.swapaxes(0, 1), (width, height))):
        cropped = resize_and_crop(np.ascontiguousarray(image), *shape)
        assert cropped.shape == (*shape, 3)
        assert np.abs(cropped.astype(int) - 200).max() < 20  # the filter sees beyond the edge


@pytest.mark.parametrize("height, width", [(32, 32), (20, 48)])
def test_resize_equals_resizing_all_and_cropping(height, width):
    image = np.random.RandomState(0).randint(0, 256, (64, 96, 3)).astype(np.uint8)
    scale = max(height / 64, width / 96)
    size = round(96 * scale), round(64 * scale)
    whole = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)).astype(int)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    cropped = whole[top : top + height, left : left + width]
    assert np.abs(resize_and_crop(image, height, width).astype(int) - cropped).max() <= 1


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_and_crop(stripes, 16, 16)[2:-2, 2:-2].astype(int) - 128).max() < 30


def test_extreme_shapes_give_the_size_asked_for():
    for shape in ((1, 1, 3), (1, 50_000, 3), (50_000, 1, 3), (7, 5, 3)):
        assert resize_and_crop(np.zeros(shape, np.uint8), 32, 16).shape == (32, 16, 3)
