"""Whatever a picture comes as, upright sRGB comes out, or one line that says what is wrong."""

import io
import struct
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, ImageOps

from titokcodec import images
from titokcodec.bitstream import DEFAULT_MAX_PIXELS
from titokcodec.errors import ImageError, LimitExceeded, TitokError
from titokcodec.images import load, resize, to_image

WIDTH, HEIGHT = 40, 30


def asymmetric(mode="RGB"):
    """No two of its eight orientations are alike."""
    image = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.rectangle((2, 3, 14, 9), fill=(200, 30, 60))
    draw.rectangle((25, 20, 38, 28), fill=(20, 160, 90))
    return image.convert(mode)


def file_of(image, kind="PNG", **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def rgb(*colour):
    return np.full((2, 2, 3), colour, np.uint8)


def one_line(error):
    return "\n" not in str(error.value)


@pytest.fixture(params=[1 << 20, 100], ids=["one band", "many bands"])
def bands(request, monkeypatch):
    monkeypatch.setattr(images, "_BAND_PIXELS", request.param)


# ---- sources -----------------------------------------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    image = asymmetric()
    data = file_of(image)
    path = tmp_path / "a picture é.png"
    path.write_bytes(data)
    expected = np.asarray(image)
    with open(path, "rb") as file, Image.open(path) as lazy:
        for source in (image, lazy, expected, str(path), path, file, data, bytearray(data), io.BytesIO(data)):
            picture = load(source)
            np.testing.assert_array_equal(picture.pixels, expected)
            assert picture.pixels.dtype == np.uint8
            assert picture.grey is False
        assert not file.closed
        assert np.asarray(lazy).shape == (HEIGHT, WIDTH, 3)


def test_a_stream_that_cannot_seek_is_read():
    class Pipe(io.RawIOBase):
        data = io.BytesIO(file_of(asymmetric()))

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.data.readinto(buffer)

    np.testing.assert_array_equal(load(io.BufferedReader(Pipe())).pixels, np.asarray(asymmetric()))


def test_the_callers_image_is_not_changed_or_closed(tmp_path):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    asymmetric().save(path, exif=exif)
    with Image.open(path) as image:
        assert load(image).pixels.shape == (WIDTH, HEIGHT, 3)
        assert image.size == (WIDTH, HEIGHT)
        assert image.getexif()[0x0112] == 6
        image.load()


def test_arrays_of_colour_grey_and_transparency():
    colour = np.asarray(asymmetric())
    assert np.shares_memory(load(colour).pixels, colour)
    np.testing.assert_array_equal(load(colour[:, ::-1]).pixels, colour[:, ::-1])
    grey = colour[..., 0]
    for array in (grey, grey[..., None]):
        picture = load(array)
        assert picture.grey
        np.testing.assert_array_equal(picture.pixels, np.stack([grey] * 3, axis=-1))
    half = np.dstack([colour, np.where(grey < 100, 0, 255).astype(np.uint8)])
    expected = np.where((grey < 100)[..., None], (255, 0, 0), colour)
    np.testing.assert_array_equal(load(half, background="red").pixels, expected)


def test_the_first_frame_of_a_file_and_the_current_frame_of_an_image():
    frames = [Image.new("RGB", (2, 2), c) for c in ("red", "blue")]
    data = file_of(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load(data).pixels, rgb(255, 0, 0))
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        np.testing.assert_array_equal(load(image).pixels, rgb(0, 0, 255))


# ---- modes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
@pytest.mark.usefixtures("bands")
def test_opaque_modes_convert_as_pillow_does(mode):
    image = ImageCms.profileToProfile(
        asymmetric(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    ) if mode == "LAB" else asymmetric(mode)
    picture = load(image)
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.grey is (mode in ("1", "L"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
@pytest.mark.parametrize("background", ["white", "black", "#102030"])
@pytest.mark.usefixtures("bands")
def test_alpha_is_laid_over_the_background(mode, background):
    image = asymmetric("L" if mode in ("LA", "La") else "RGB").convert("LA" if mode in ("LA", "La") else "RGBA")
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    if mode == "PA":
        image = image.convert("P").convert("PA")
        image.putpixel((0, 0), (5, 0))
    elif mode != image.mode:
        image = image.convert(mode)
    straight = image.convert("LA").convert("RGBA") if mode == "La" else image.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", image.size, background), straight).convert("RGB")
    picture = load(image, background=background)
    assert np.abs(picture.pixels.astype(int) - np.asarray(expected)).max() <= 1
    assert picture.grey is (mode in ("LA", "La") and background != "#102030")


def test_a_palette_with_transparent_entries():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    for transparency, first in ((0, (9, 9, 9)), (bytes([0, 255]), (9, 9, 9)), (1, (255, 0, 0))):
        pixels = load(file_of(image, transparency=transparency), background="#090909").pixels
        assert tuple(pixels[0, 0]) == first
    rgba = Image.new("P", (1, 1))
    rgba.putpalette([255, 0, 0, 0], "RGBA")
    np.testing.assert_array_equal(load(rgba, background="lime").pixels, [[[0, 255, 0]]])


@pytest.mark.parametrize(
    ("mode", "value", "key"), [("1", 1, 255), ("L", 70, 70), ("RGB", (1, 2, 3), (1, 2, 3)), ("I;16", 515, 515)]
)
def test_a_key_colour_is_transparent(mode, value, key):
    image = Image.new(mode, (2, 2), value)
    image.info["transparency"] = key
    np.testing.assert_array_equal(load(image, background="#ff8000").pixels, rgb(255, 128, 0))
    reread = load(file_of(image, transparency=key), background="#ff8000")
    np.testing.assert_array_equal(reread.pixels, rgb(255, 128, 0))
    assert not reread.grey
    image.putpixel((0, 0), 0)
    np.testing.assert_array_equal(load(image, background="#ff8000").pixels[0, 0], [0, 0, 0])


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bit_grey_of_either_byte_order(mode):
    values = [0, 128, 129, 257, 5000, 65535]
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    picture = load(image)
    assert picture.pixels[0, :, 1].tolist() == [0, 0, 1, 1, 19, 255]
    assert picture.grey


def test_sixteen_bit_files():
    values = np.array([[0, 257, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert load(file_of(Image.fromarray(values), kind)).pixels[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [-5, 0, 200, 255], [0, 0, 200, 255]),
        ("I", [-5, 257, 65535, 70000], [0, 1, 255, 255]),
        ("F", [-0.5, 0, 0.5, 1], [0, 0, 128, 255]),
        ("F", [-9, 0.5, 100.6, 300], [0, 0, 101, 255]),
        ("F", [float("nan"), 0.2, 1, 0], [0, 51, 255, 0]),
    ],
)
@pytest.mark.usefixtures("bands")
def test_deep_grey_is_scaled_by_the_largest_value_of_the_whole_picture(mode, values, expected):
    image = Image.fromarray(np.repeat(np.array(values, np.int32 if mode == "I" else np.float32), 60)[:, None])
    assert image.mode == mode
    picture = load(image)
    assert picture.grey
    assert picture.pixels[::60, 0, 0].tolist() == expected


def test_grey_is_found_in_colour_modes_too():
    assert load(asymmetric("L").convert("RGB")).grey
    assert load(asymmetric("L").convert("P")).grey
    nearly = np.asarray(asymmetric("L").convert("RGB")).copy()
    nearly[-1, -1, 2] ^= 1
    assert not load(nearly).grey


# ---- orientation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.usefixtures("bands")
def test_all_orientations_are_turned_upright(orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(asymmetric(mode), exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(load(data).pixels, expected)
    stored = np.asarray(asymmetric(mode).convert("RGB"))
    if orientation == 6:  # the camera was turned, so the stored picture has to be turned clockwise
        np.testing.assert_array_equal(load(data).pixels, np.rot90(stored, -1))
    assert np.array_equal(load(data).pixels, stored) is (orientation == 1)


@pytest.mark.parametrize("exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_damaged_exif_is_ignored(exif):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load(file_of(asymmetric(), "JPEG", exif=exif)).pixels.shape == (HEIGHT, WIDTH, 3)


# ---- colour profiles ---------------------------------------------------------------------------------------------

SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
DISPLAY_P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
ADOBE_RGB = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])


def icc(space, tags, kind=b"mntr", connection=b"XYZ "):
    """An ICC profile, version 2, by the book: header, tag table, tags."""
    tags = {b"desc": b"desc" + struct.pack(">4xI", 5) + b"test\0" + bytes(78), **tags}
    tags[b"wtpt"] = xyz(0.9642, 1, 0.8249)
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    header = struct.pack(">8xI4s4s4s12x4s28xIII", 0x02100000, kind, space, connection, b"acsp", 0xF6D6, 0x10000, 0xD32D)
    header += bytes(128 - len(header))
    profile = header + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


def xyz(*values):
    return b"XYZ " + struct.pack(">4x3i", *(round(v * 65536) for v in values))


def gamma_curve(gamma):
    return b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))


def rgb_icc(primaries, gamma=2.2):
    tags = {name + b"XYZ": xyz(*column) for name, column in zip((b"r", b"g", b"b"), primaries.T, strict=True)}
    return icc(b"RGB ", tags | {name + b"TRC": gamma_curve(gamma) for name in (b"r", b"g", b"b")})


def cmyk_icc():
    """Every ink mix is Lab (50 %, 0, 0), but paper is white."""
    corners = np.tile(np.array([128, 128, 128], np.uint8), (16, 1))
    corners[0] = 255, 128, 128
    ramp = bytes(range(256))
    lut = b"mft1" + struct.pack(">4x4B9i", 4, 3, 2, 0, *(np.eye(3, dtype=int) * 65536).ravel())
    return icc(b"CMYK", {b"A2B0": lut + ramp * 4 + corners.tobytes() + ramp * 3}, b"prtr", b"Lab ")


def to_srgb(colour, primaries, gamma=2.2):
    linear = np.linalg.solve(SRGB, primaries @ (np.array(colour) / 255) ** gamma).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (90, 150, 60), (200, 180, 170), (128, 128, 128)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_wide_gamuts_become_srgb(primaries, colour, kind):
    data = file_of(Image.new("RGB", (2, 2), colour), kind, icc_profile=rgb_icc(primaries))
    got = load(data).pixels[0, 0].astype(int)
    np.testing.assert_allclose(got, to_srgb(colour, primaries), atol=2)
    if colour != (128, 128, 128) and colour != (255, 0, 0):
        assert np.abs(got - colour).max() >= 3


@pytest.mark.usefixtures("bands")
def test_a_profile_leaves_alpha_and_background_alone():
    image = Image.new("RGBA", (20, 20), (90, 150, 60, 255))
    image.paste((90, 150, 60, 0), (0, 0, 20, 10))
    pixels = load(file_of(image, icc_profile=rgb_icc(DISPLAY_P3)), background="#5a963c").pixels
    assert (pixels[:10] == (0x5A, 0x96, 0x3C)).all()
    np.testing.assert_allclose(pixels[10:].reshape(-1, 3).mean(axis=0), to_srgb((90, 150, 60), DISPLAY_P3), atol=2)


def test_palettes_follow_their_profile():
    image = Image.new("P", (2, 2))
    image.putpalette([90, 150, 60])
    got = load(file_of(image, icc_profile=rgb_icc(ADOBE_RGB))).pixels[0, 0]
    np.testing.assert_allclose(got, to_srgb((90, 150, 60), ADOBE_RGB), atol=2)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
@pytest.mark.parametrize("profile", ["grey", "colour"])
def test_grey_pictures_follow_a_profile_and_stay_grey(mode, profile):
    data = icc(b"GRAY", {b"kTRC": gamma_curve(1.0)}) if profile == "grey" else rgb_icc(DISPLAY_P3, 1.0)
    image = Image.new(mode, (2, 2), {"L": 64, "LA": (64, 255), "I;16": 64 * 257}[mode])
    picture = load(file_of(image, icc_profile=data))
    assert picture.grey
    np.testing.assert_allclose(picture.pixels, 137, atol=1)  # linear 64 / 255 under sRGB's curve


def test_cmyk_follows_its_profile():
    image = Image.new("CMYK", (2, 2), (200, 10, 90, 40))
    plain = load(file_of(image, "TIFF")).pixels
    np.testing.assert_array_equal(plain, np.asarray(image.convert("RGB")))
    managed = load(file_of(image, "TIFF", icc_profile=cmyk_icc())).pixels[0, 0].astype(int)
    assert np.ptp(managed) <= 2
    paper = Image.new("CMYK", (2, 2))
    assert load(file_of(paper, "TIFF", icc_profile=cmyk_icc())).pixels.min() >= 253


def test_srgb_by_any_name_leaves_pixels_exact():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(load(file_of(asymmetric(), icc_profile=profile)).pixels, np.asarray(asymmetric()))


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"junk"),
        ("RGB", rgb_icc(DISPLAY_P3)[:150]),
        ("RGB", icc(b"RGB ", {})),
        ("RGB", icc(b"GRAY", {b"kTRC": gamma_curve(1.0)})),
        ("RGB", cmyk_icc()),
        ("L", cmyk_icc()),
        ("CMYK", rgb_icc(DISPLAY_P3)),
        ("LAB", rgb_icc(DISPLAY_P3)),
        ("RGB", "text"),
    ],
)
def test_profiles_that_are_broken_or_do_not_fit_are_ignored(mode, profile):
    image = Image.new(mode, (2, 2), 120 if mode == "L" else tuple(range(60, 60 + 10 * len(mode), 10)))
    image.info["icc_profile"] = profile
    np.testing.assert_array_equal(load(image).pixels, np.asarray(image.convert("RGB")))


# ---- errors ------------------------------------------------------------------------------------------------------


def test_what_is_not_a_picture_is_named_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture\n" * 30)
    (tmp_path / "empty.png").write_bytes(b"")
    other = "not a picture"
    cases = {"missing.png": "no such file", "notes.txt": other, "empty.png": other, ".": "directory"}
    for name, text in cases.items():
        path = tmp_path / name
        with pytest.raises(ImageError, match=text) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert one_line(caught)
    for source in (b"", b"GIF89a", io.BytesIO(b"text"), io.StringIO("text"), "a\0b", 5, None, [1, 2]):
        with pytest.raises(ImageError) as caught:
            load(source)
        assert one_line(caught)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_truncated_files_are_errors_that_name_the_file(kind, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    path = tmp_path / f"short.{kind.lower()}"
    data = file_of(image, kind)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=path.name) as caught:
        load(path)
    assert one_line(caught)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "ICO", "PPM"])
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), stop=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_damage_gives_a_picture_or_our_error(kind, place, value, stop):
    data = bytearray(file_of(asymmetric(), kind))
    data[place % len(data)] = value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = load(bytes(data[: 1 + stop % len(data)] if stop % 2 else data), max_pixels=10**5)
    except TitokError as error:
        assert "\n" not in str(error)
    else:
        assert picture.pixels.shape[2] == 3


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), bool),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 4, 1), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        Image.new("RGB", (0, 4)),
    ],
)
def test_wrong_arrays_and_empty_pictures_say_what_is_taken(array):
    with pytest.raises(ImageError, match=r"uint8 arrays of shape HxWx3|no pixels") as caught:
        load(array)
    assert one_line(caught)


@pytest.mark.parametrize("background", ["no such colour", "#12", "", None, 7])
def test_an_unknown_background_is_an_error_even_without_alpha(background):
    with pytest.raises(TitokError, match="background"):
        load(asymmetric(), background=background)


# ---- limits ------------------------------------------------------------------------------------------------------


def png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels_begin = struct.pack(">I", 9999) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + pixels_begin


def webp_header(width, height):
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    body = b"WEBPVP8X" + struct.pack("<I4x", 10) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def icon_of(png):
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


@pytest.mark.parametrize("width", [10_000, 16_000])
@pytest.mark.parametrize("header", [png_header, webp_header, lambda w, h: icon_of(png_header(w, h))])
@pytest.mark.filterwarnings("error")
def test_bombs_are_refused_before_anything_is_decoded(header, width):
    """These files end after the header: whoever tries to decode them gets another error."""
    tracemalloc.start()
    try:
        expected = rf"{width * 10_000} pixels.*{DEFAULT_MAX_PIXELS}.*--max-pixels"
        with pytest.raises(LimitExceeded, match=expected) as caught:
            load(header(width, 10_000))
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    assert one_line(caught)


@pytest.mark.filterwarnings("error")
def test_our_limit_replaces_pillows_and_leaves_it_as_it_was(monkeypatch):
    data = file_of(asymmetric())
    size = WIDTH * HEIGHT
    for pillows in (10, size - 1, None, 10**9):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        for enough in (size, size + 1, 10 * size, None):
            assert load(data, max_pixels=enough).pixels.shape == (HEIGHT, WIDTH, 3)
        for source in (data, asymmetric(), np.asarray(asymmetric())):
            with pytest.raises(LimitExceeded, match=str(size)):
                load(source, max_pixels=size - 1)
        assert Image.MAX_IMAGE_PIXELS is pillows


def test_resize_knows_no_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert resize(np.asarray(asymmetric()), (50, 50)).shape == (50, 50, 3)


def test_other_threads_keep_pillows_limit_meanwhile(monkeypatch):
    data = file_of(asymmetric())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    seen = []

    def other():
        assert Image.MAX_IMAGE_PIXELS == 10
        try:
            Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            seen.append(str(error))

    class Slow(io.BytesIO):
        def read(self, *args):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            return super().read(*args)

    load(Slow(data))
    assert seen
    assert all("limit of 20 pixels" in message for message in seen)


def test_many_threads_with_limits_of_their_own():
    data, failures = file_of(asymmetric()), []

    def work(limit):
        for _ in range(20):
            try:
                load(data, max_pixels=limit)
            except LimitExceeded:
                failures.append(limit)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (None, 5, 10**6, 10)]
    before = Image.MAX_IMAGE_PIXELS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failures) == [5] * 20 + [10] * 20
    assert Image.MAX_IMAGE_PIXELS is before


def test_loading_needs_little_more_than_the_result():
    image = Image.new("RGBA", (2500, 2500), (10, 200, 30, 99))
    image.getexif()[0x0112] = 6
    tracemalloc.start()  # numpy's memory; Pillow's own is not seen
    try:
        picture = load(image)
        assert tracemalloc.get_traced_memory()[1] < picture.pixels.nbytes + (16 << 20)
    finally:
        tracemalloc.stop()


# ---- out again ---------------------------------------------------------------------------------------------------


def test_to_image_gives_rgb_or_luma():
    pixels = np.asarray(asymmetric())
    assert to_image(pixels).mode == "RGB"
    np.testing.assert_array_equal(np.asarray(to_image(pixels)), pixels)
    grey = to_image(pixels, grey=True)
    assert grey.mode == "L"
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(np.asarray(grey), luma, atol=0.51)
    neutral = load(asymmetric("L"))
    np.testing.assert_array_equal(np.asarray(to_image(neutral.pixels, neutral.grey)), np.asarray(asymmetric("L")))


@pytest.mark.parametrize("size", [(256, 256), (1, 1), (7, 300), (41, 29)])
@pytest.mark.usefixtures("bands")
def test_resize_is_lanczos_whatever_the_aspect(size):
    pixels = np.asarray(asymmetric())
    scaled = resize(pixels, size)
    assert scaled.shape == (size[1], size[0], 3)
    assert scaled.dtype == np.uint8
    expected = asymmetric().resize(size, Image.Resampling.LANCZOS)
    assert np.abs(scaled.astype(int) - np.asarray(expected)).mean() < 2
    assert resize(pixels, (WIDTH, HEIGHT)) is pixels
