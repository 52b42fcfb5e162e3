"""What went wrong, in one line a person can act on."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: the message names the field, the value and the remedy. The CLI prints it and exits with 2."""


class RunError(RuntimeError):
    """A run that cannot go on (diverged, disk full). The CLI prints it and exits with 1."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
