"""The error a person can cause and mend: its message is one sentence that says what is wrong and what to do."""


class LongformerError(Exception):
    """An expected failure of training, models or checkpoints; shown to the user without a traceback."""


class WorkFailed(LongformerError):
    """The input was right, but the work itself failed (a worker died, a server went away): exit code 1 instead of 2."""
