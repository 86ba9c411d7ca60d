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

from titokcodec.errors import FramesWarning, ImageError, LimitExceeded, RangeWarning, TitokError
from titokcodec.format.limits import DEFAULT_MAX_PIXELS
from titokcodec.pictures import srgb
from titokcodec.pictures.images import load, resize, to_image

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
    monkeypatch.setattr(srgb, "BAND_PIXELS", request.param)


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


# ---- frames ------------------------------------------------------------------------------------------------------

COLOURS = ("red", "lime", "blue")


def frames_of(kind):
    """A file of three frames: red, green, blue."""
    frames = [Image.new("RGB", (2, 2), colour) for colour in COLOURS]
    options = {"lossless": True} if kind == "WEBP" else {}
    return file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_frames_are_chosen_and_never_lost_in_silence(kind):
    data = frames_of(kind)
    with pytest.warns(FramesWarning, match=r"several frames, of which the first .* frame= \(--frame\)"):
        np.testing.assert_array_equal(load(data).pixels, rgb(255, 0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for frame, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
            np.testing.assert_array_equal(load(data, frame=frame).pixels, rgb(*colour))
    for frame in (3, 1000):
        with pytest.raises(ImageError, match=f"has 3 frames, and no frame {frame} counted from 0; give 0 to 2"):
            load(data, frame=frame)


def test_an_image_gives_its_current_frame_and_stays_where_it_is():
    with Image.open(io.BytesIO(frames_of("TIFF"))) as image, warnings.catch_warnings():
        warnings.simplefilter("error")
        image.seek(1)
        np.testing.assert_array_equal(load(image).pixels, rgb(0, 255, 0))
        np.testing.assert_array_equal(load(image, frame=2).pixels, rgb(0, 0, 255))
        with pytest.raises(ImageError, match="no frame 3"):
            load(image, frame=3)
        assert image.tell() == 1


def test_a_single_frame_is_number_0_and_warns_of_nothing():
    for source in (file_of(asymmetric(), "GIF"), file_of(asymmetric(), "TIFF"), asymmetric(), np.asarray(asymmetric())):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(load(source).pixels, load(source, frame=0).pixels)
        with pytest.raises(ImageError, match="has 1 frame, and no frame 1"):
            load(source, frame=1)


@pytest.mark.parametrize("frame", [-1, 1.0, "1", True])
def test_frames_that_cannot_be_are_refused(frame):
    with pytest.raises(TitokError, match="frame is"):
        load(asymmetric(), frame=frame)


def test_a_warning_made_an_error_is_still_that_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FramesWarning):
            load(frames_of("GIF"))


# ---- modes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
@pytest.mark.usefixtures("bands")
def test_opaque_modes_convert_as_pillow_does(mode):
    image = (
        ImageCms.profileToProfile(
            asymmetric(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        if mode == "LAB"
        else asymmetric(mode)
    )
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
@pytest.mark.filterwarnings("ignore::titokcodec.RangeWarning")
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
        ("F", [0.5, 0.25, 1, 0], [128, 64, 255, 0]),
    ],
)
@pytest.mark.usefixtures("bands")
@pytest.mark.filterwarnings("ignore::titokcodec.RangeWarning")
def test_deep_grey_is_scaled_by_the_values_of_the_whole_picture(mode, values, expected):
    image = Image.fromarray(np.repeat(np.array(values, np.int32 if mode == "I" else np.float32), 60)[:, None])
    assert image.mode == mode
    picture = load(image)
    assert picture.grey
    assert picture.pixels[::60, 0, 0].tolist() == expected


def png(depth, colour, row, transparent, palette=b""):
    """A PNG of one row, bit by bit as its specification has it: Pillow writes no grey of 2 or 4 bits."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    bits = "".join(f"{value:0{depth}b}" for value in row)
    packed = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
    width = len(row) // (3 if colour == 2 else 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
        + (chunk(b"PLTE", palette) if palette else b"")
        + chunk(b"tRNS", transparent)
        + chunk(b"IDAT", zlib.compress(b"\0" + packed))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_found_at_every_depth(depth):
    most = 2**depth - 1
    row = sorted({0, 1, most // 3, most})
    for key in row:
        data = png(depth, 0, row, struct.pack(">H", key))
        with Image.open(io.BytesIO(data)) as image:
            before = dict(image.info)
            for source in (data, image):
                pixels = load(source, background="#ff8000").pixels[0]
                for value, pixel in zip(row, pixels.tolist(), strict=True):
                    assert pixel == ([255, 128, 0] if value == key else [round(value * 255 / most)] * 3)
            assert image.info == before


def test_the_transparent_colour_of_a_png_of_16_bits_a_channel_is_found():
    row, key = (0x1234, 0x5678, 0x9ABC, 0x4321, 0x5678, 0x9ABC), struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    with Image.open(io.BytesIO(png(16, 2, row, key))) as image:
        for _ in "not loaded", "loaded":
            pixels = load(image, background="#ff8000").pixels[0].tolist()
            assert pixels == [[255, 128, 0], [0x43, 0x56, 0x9A]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_transparent_entries_of_palettes_of_every_depth(depth):
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])[: 3 * 2**depth]
    row = list(range(len(palette) // 3))
    for alphas in (b"\0", b"\xff\0", b"\0\0"):
        pixels = load(png(depth, 3, row, alphas, palette), background="#ff8000").pixels[0].tolist()
        for value in row:
            clear = value < len(alphas) and alphas[value] == 0
            assert pixels[value] == ([255, 128, 0] if clear else list(palette[3 * value : 3 * value + 3]))


# ---- which value is white ----------------------------------------------------------------------------------------


def ramp(dtype, white):
    return (np.linspace(0, 1, 64 * 64).reshape(64, 64) * white).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_few_values_that_overshoot_change_nothing_else(dtype):
    plain = load(ramp(dtype, 1)).pixels
    assert 126 < plain.mean() < 129
    for value in (1.001, 1.5, 300):
        values = ramp(dtype, 1)
        values[0, 0] = value
        for source in (values, Image.fromarray(values.astype(np.float32))):
            with pytest.warns(RangeWarning, match=r"1 is taken for white; say which it is with white= \(--white\)"):
                pixels = load(source).pixels
            assert pixels[0, 0, 0] == 255
            np.testing.assert_allclose(pixels[1:], plain[1:].astype(int), atol=1)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
@pytest.mark.parametrize("white", [255, 65535])
def test_what_the_type_does_not_tell_is_guessed_and_said(dtype, white):
    image = Image.fromarray(ramp(dtype, white))
    with pytest.warns(RangeWarning, match=f"{white} is taken for white"):
        guessed = load(image).pixels
    np.testing.assert_allclose(guessed[..., 0], ramp(float, 255), atol=1)


@pytest.mark.filterwarnings("error")
def test_what_is_told_is_no_guess():
    for source, white in [
        (ramp(np.float32, 1), None),
        (ramp(np.uint16, 65535), None),
        (ramp(np.float32, 255), 255),
        (ramp(np.float32, 1.001), 1),
        (ramp(np.float64, 3.5), np.float64(3.5)),
        (ramp(np.uint16, 4095), 4095),
        (Image.fromarray(ramp(np.uint16, 4095)), 4095),
        (file_of(Image.fromarray(ramp(np.uint16, 1023))), 1023),
        (Image.fromarray(ramp(np.int32, 255)), 255),
        (np.dstack([ramp(np.uint16, 4095)] * 3), 4095),
    ]:
        picture = load(source, white=white)
        assert picture.grey
        np.testing.assert_allclose(picture.pixels[..., 0], ramp(float, 255), atol=1)


def test_pgm_says_itself_what_is_white():
    dark = b"P5 2 1 65535\n" + struct.pack(">2H", 0, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(dark).pixels.max() == 0
        assert load(dark, white=100).pixels.max() == 255


def test_fewer_bits_in_16_look_black_and_are_said_to():
    for bits in (8, 10, 12):
        with pytest.warns(RangeWarning, match=rf"nearly black; .* white={2**bits - 1} \(--white {2**bits - 1}\)"):
            assert load(ramp(np.uint16, 2**bits - 1)).pixels.max() <= 16


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_an_error(value):
    values = ramp(np.float32, 1)
    values[40, 3] = value
    for source in (values, np.dstack([values] * 3), Image.fromarray(values)):
        for white in (None, 1):
            with pytest.raises(ImageError, match="NaN or infinity") as caught:
                load(source, white=white)
            assert one_line(caught)


@pytest.mark.parametrize("white", [None, 1])
def test_normalised_floats_are_warned_of_and_a_few_that_undershoot_are_not(white):
    values = np.linspace(-1, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    with pytest.warns(RangeWarning, match=r"go down to -1, .* undo a normalisation"):
        load(values, white=white)
    sharpened = values / 2 + 0.5
    sharpened[0, 0] = -0.2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (load(sharpened, white=white).pixels[0, 0] == 0).all()


@pytest.mark.parametrize("white", [0, -1, float("nan"), float("inf"), "255", True])
def test_a_white_that_cannot_be_is_refused(white):
    with pytest.raises(TitokError, match="white is"):
        load(asymmetric(), white=white)


def test_deep_arrays_have_colour_and_alpha():
    colour = np.asarray(asymmetric())
    for dtype, white in ((np.float32, 1), (np.uint16, 65535)):
        deep = (colour / 255 * white).round(6 if white == 1 else 0).astype(dtype)
        np.testing.assert_array_equal(load(deep).pixels, colour)
        clear = np.dstack([deep, np.zeros((HEIGHT, WIDTH), dtype)])
        assert (load(clear, background="red").pixels == (255, 0, 0)).all()


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
        np.zeros((4, 4, 3), np.int32),
        np.zeros((4, 4, 3), complex),
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
