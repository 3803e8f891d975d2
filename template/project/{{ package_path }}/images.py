"""Images in one form: as tables and logs hold them, and as models read them, in training, service, batch and device.

Needs numpy and Pillow only, each where it is used, since the settings import this; `export` puts the file beside
the model.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

# That are read: the formats of cameras, scanners and the web; others have decoders that hardly anyone tests
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")  # of their files
MAX_SUFFIX = max(map(len, SUFFIXES))
MAX_PIXELS = 50_000_000  # of an image, before it is made smaller
MAX_BYTES = 50_000_000  # of an image's file
SCAN, USUAL_SCANS = (
    b"\xff\xda",
    16,
)  # what begins a pass over a JPEG, and how many hardly any exceeds
MIN_HASH_BITS = 8  # that a difference hash has of either kind
PIXELS_KEY = "pixels"  # of the note in a stored PNG (tEXt) that says how many its original had
# Why a value is no image
NOT_THERE = "names no file in the folder of images"
OUTSIDE = "names a file outside of the folder of images"
IS_PATH = "is a path, and the settings name no folder of images; base64 needs none"
UNREADABLE = f"is no image that can be read ({', '.join(FORMATS)})"
TOO_LARGE = f"has more than {MAX_PIXELS // 1_000_000} million pixels or bytes"
FAULTS = (NOT_THERE, OUTSIDE, IS_PATH, UNREADABLE, TOO_LARGE)


class ImageError(ValueError):
    """A value that is no image; its text is one of `FAULTS`."""


class Form(NamedTuple):
    """What the images of a column are brought into.

    `size`: pixels a side. `channels`: 3 for red, green and blue, 1 for grey. `fit`, of an image that is not square:
    crop takes its middle, stretch all of it, pad all of it with black beside it.
    """

    size: int = 64
    channels: int = 3
    fit: str = "crop"


class Decoded(NamedTuple):
    """An image both as `stored` gives it and as `pixels` does, for who needs both: it is decoded once."""

    text: str
    pixels: np.ndarray


def decoded(value: str, form: Form, folder: Path | None = None) -> Decoded:
    """What `stored` and `pixels` make of an image, of one decoding.

    Args, Raises:
        as `stored`.
    """
    image = _fitted(_content(value, folder), form)
    return Decoded(_png(image), _to_array(image))


def stored(value: str, form: Form, folder: Path | None = None) -> str:
    """An image as tables and logs hold it: a PNG of its form, in base64. What is stored so already stays the same.

    Args:
        value: a file's content in base64, also as a data URL, or the path of a file in `folder`.
        folder: that paths start from, and that no other file is read from; None: no path is followed.

    Raises:
        ImageError: with the reason, one of `FAULTS`.
    """
    return _png(_fitted(_content(value, folder), form))


def pixels(value: str | Decoded | None, form: Form) -> np.ndarray:
    """An image in base64 as a model reads it: uint8, shape (channels, size, size); black where there is none.

    One that is decoded already stays as it is.

    Raises:
        ImageError: with the reason, one of `FAULTS`.
    """
    import numpy as np

    if not value:
        return np.zeros((form.channels, form.size, form.size), np.uint8)
    return (
        value.pixels
        if isinstance(value, Decoded)
        else _to_array(_fitted(_content(value, None), form))
    )


def to_pixels(image: str) -> np.ndarray:
    """The pixels of what `stored` gives, uint8, shape (channels, size, size)."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        return _to_array(opened)


def from_pixels(array: np.ndarray) -> str:
    """The reverse of `to_pixels`."""
    from PIL import Image

    return _png(Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)))


def area(value: str | None, folder: Path | None = None) -> int:
    """How much work an image is: its pixels, by what its file says of itself, or its bytes where these are more.

    Nothing is decoded. A JPEG of more passes than usual counts again for them; what cannot be read has its bytes.

    Args:
        value, folder: as `stored` takes them.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    content = b""
    try:
        content = _content(value or "", folder)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            passes = content.count(SCAN) // USUAL_SCANS if image.format == "JPEG" else 0
            return max(image.width * image.height * (1 + passes), len(content))
    except Exception:  # a decoder may raise anything
        return len(content)


def difference_hash(image: str | None) -> int:
    """Of a stored image 64 bits that hardly change with its size, light, noise or compression (difference hash, Krawetz,
    2013): whether each pixel is lighter than the one to its left, once the image is grey and 9 pixels wide, 8 high.

    0 for none, and for one in which nearly all bits are alike: a plain area or a gradient says too little.
    """
    import numpy as np
    from PIL import Image

    if not image:
        return 0
    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        small = np.asarray(opened.convert("L").resize((9, 8), Image.Resampling.BILINEAR))
    bits = small[:, 1:] > small[:, :-1]
    if not MIN_HASH_BITS <= bits.sum() <= bits.size - MIN_HASH_BITS:
        return 0
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def original_pixels(image: str) -> int:
    """How many pixels a stored image had before it was brought into its form; its own where nobody noted it."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(image))) as opened:
        return _original_pixels(opened)


def _original_pixels(image: Image.Image) -> int:
    noted = str(image.info.get(PIXELS_KEY, ""))
    # What a client wrote into its own file is believed as far as it can be
    is_noted = noted.isascii() and noted.isdecimal() and len(noted) <= len(str(MAX_PIXELS))
    return int(noted) if is_noted and 0 < int(noted) <= MAX_PIXELS else image.width * image.height


def noise(form: Form) -> str:
    """An image of chance as `stored` gives it: no other of this form takes longer to be read."""
    import numpy as np

    shape = (form.channels, form.size, form.size)
    return from_pixels(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def _to_array(image: Image.Image) -> np.ndarray:
    import numpy as np

    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _png(image: Image.Image) -> str:
    from PIL.PngImagePlugin import PngInfo

    buffer, note = io.BytesIO(), PngInfo()
    if PIXELS_KEY in image.info:
        note.add_text(PIXELS_KEY, str(image.info[PIXELS_KEY]))
    # Of photographs as small as by searching for repeats, in a quarter of the time
    image.save(buffer, "PNG", compress_type=zlib.Z_RLE, pnginfo=note)
    return base64.b64encode(buffer.getvalue()).decode()


def _content(value: str, folder: Path | None) -> bytes:
    # In base64 there is no full stop, in the name of an image's file there is
    if value[-MAX_SUFFIX:].lower().endswith(SUFFIXES):
        return read(value, folder)
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(UNREADABLE) from None


def read(value: str, folder: Path | None) -> bytes:
    """The content of the file in `folder` that a path names.

    Raises:
        ImageError: with the reason, one of `FAULTS`.
    """
    if folder is None:
        raise ImageError(IS_PATH)
    try:
        path = located(value, folder).resolve()
        is_inside = path.is_relative_to(folder.resolve())
        size = path.stat().st_size if is_inside else 0
        content = path.read_bytes() if 0 < size <= MAX_BYTES else b""
    except (OSError, RuntimeError, ValueError):  # links that go in a circle, a name that cannot be
        raise ImageError(NOT_THERE) from None
    if not is_inside:
        raise ImageError(OUTSIDE)
    if size > MAX_BYTES:
        raise ImageError(TOO_LARGE)
    return content


def located(value: str, folder: Path) -> Path:
    """The path of a file in `folder` by its name, also by one that Windows wrote, with backslashes."""
    path = folder / value
    return path if "\\" not in value or os.path.exists(path) else folder / value.replace("\\", "/")


def sides(value: str, folder: Path | None = None) -> tuple[int, int]:
    """Width and height of an image in pixels, by what its file says of itself.

    Args:
        value, folder: as `stored` takes them.

    Raises:
        ImageError: with the reason, one of `FAULTS`.
    """
    from PIL import Image

    content = _content(value, folder)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.size
    except Exception:  # a decoder may raise anything
        raise ImageError(UNREADABLE) from None


def _fitted(content: bytes, form: Form) -> Image.Image:
    from PIL import Image, ImageOps

    side, mode = (form.size, form.size), "L" if form.channels == 1 else "RGB"
    Image.MAX_IMAGE_PIXELS = None  # which warns of some and refuses others; here is one limit
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(TOO_LARGE)
            original = _original_pixels(image) if image.size == side else image.width * image.height
            # A JPEG comes an eighth as large or more for an eighth of the work
            image.draft(mode, (2 * form.size, 2 * form.size))
            upright = _plain(ImageOps.exif_transpose(image), mode)
    except ImageError:
        raise
    except Exception:  # a decoder may raise anything
        raise ImageError(UNREADABLE) from None
    if upright.size == side:
        fitted = upright
    elif form.fit == "crop":
        fitted = ImageOps.fit(upright, side, Image.Resampling.BILINEAR)
    elif form.fit == "pad":
        fitted = ImageOps.pad(upright, side, Image.Resampling.BILINEAR)
    else:
        fitted = upright.resize(side, Image.Resampling.BILINEAR)
    fitted.info = {PIXELS_KEY: original}  # and nothing else that the file said of itself
    return fitted


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image in grey or in colours of 8 bits; what shows through is white."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):  # of which Pillow keeps the lower 8 bits only
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
    return image.convert(mode)
