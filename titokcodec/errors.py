"""The one family of errors that this library raises on purpose, and the one of its warnings.

Every message is one line: what is wrong, then what to do about it. All of them are ``ValueError``s, so code that
guards a decoder with ``except ValueError`` (as Pillow's users do) keeps working. Warnings report what was left out or
guessed where the work goes on; ``warnings.filterwarnings("ignore", category=...)`` silences one of them or all.
"""

from titokcodec.io.names import printable


class TitokError(ValueError):
    """Base of every error below; catch this one to catch them all.

    Args:
        text: What is wrong, and what to do. Names that come from files may be in it, so it is made ``printable``.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class CorruptFile(TitokError):
    """The bytes are not a ``.titok`` file, or were cut short, damaged or extended."""


class UnsupportedFile(TitokError):
    """A well-formed file that needs a newer version of this library."""


class ModelMismatch(TitokError):
    """The file was made with another model than the one at hand, or asks something of it that it cannot do."""


class LimitExceeded(TitokError):
    """The work would take more pixels, or more tiles, than the caller allows."""


class ImageError(TitokError):
    """The input is not a picture that can be read."""


class WeightsError(TitokError):
    """A weight file is missing, unreadable or does not fit its own configuration."""


class TitokWarning(UserWarning):
    """Base of every warning below."""


class FramesWarning(TitokWarning):
    """A picture file has several frames or pages, and the first was taken by default."""


class RangeWarning(TitokWarning):
    """Which value of a picture of more than 8 bits is white had to be guessed."""


class SkippedWarning(TitokWarning):
    """A broken input of a batch was left out, as ``errors="skip"`` asks."""


class IgnoredWarning(TitokWarning):
    """An option was given that says nothing to this format."""
