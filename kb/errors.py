"""What can go wrong in the knowledge base.

    KbError
    ├── SourceError      a FAQ or session file that can't be used: file, line, field, what to do
    ├── EmbedderError    the encoder is missing, altered, or gives vectors that can't be used
    ├── IndexFolderError  the index folder or database is missing, corrupt, or made by another encoder
    ├── UnknownFaqError  an id that the index doesn't hold, or holds already
    └── CalibrationError  labels that no threshold can be had of
"""


class KbError(Exception):
    """Base of every error that `kb` raises."""


class SourceError(KbError):
    """A data file can't be used; the message names file, line and field."""


class EmbedderError(KbError):
    """The encoder can't be loaded, isn't the one expected, or gave unusable vectors."""


class IndexFolderError(KbError):
    """The index folder is missing, corrupt, or doesn't fit the encoder."""


class UnknownFaqError(KbError):
    """An FAQ id that isn't in the index (update, remove), or is there already (add)."""


class CalibrationError(KbError):
    """Labelled queries can't calibrate a knowledge base, or a calibration doesn't read."""
