"""The one family of errors that this library raises on purpose.

Every message is one line: what is wrong, then what to do about it. All of them are ``ValueError``s, so code that
guards a decoder with ``except ValueError`` (as Pillow's users do) keeps working.
"""


class TitokError(ValueError):
    """Base of every error below; catch this one to catch them all."""


class CorruptFile(TitokError):
    """The bytes are not a ``.titok`` file, or were cut short, damaged or extended."""


class UnsupportedFile(TitokError):
    """A well-formed file that needs a newer version of this library."""


class ModelMismatch(TitokError):
    """The file was made with another model than the one at hand, or asks something of it that it cannot do."""


class LimitExceeded(TitokError):
    """Decoding would need more pixels than the caller allows."""


class ImageError(TitokError):
    """The input is not a picture that can be read."""


class WeightsError(TitokError):
    """A weight file is missing, unreadable or does not fit its own configuration."""
