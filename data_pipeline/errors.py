"""The error a person can cause and mend: its message is one sentence that says what is wrong and what to do."""


class DataError(Exception):
    """An expected failure of a source, a shard or a prepared data set; shown to the user without a traceback."""


class MissingFileError(DataError):
    """A file of a prepared data set is not where it should be."""
