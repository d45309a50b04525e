"""The one exception that stands for a mistake of the user's, and what is said to a person."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says: libraries go on with hints about their own use."""
    return str(error).strip().partition("\n")[0]


class UserError(Exception):
    """A mistake in a command, a config or a data set.

    Its message is one line that names what was given and what is allowed. The command line prints it and ends
    with exit code 2; nothing is left half-written.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, on the CPU or on a GPU."""
    # By its name, as torch is not imported here; its allocator on the CPU has no exception of its own.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def printable(text: str) -> str:
    """Replace what is no visible character: it could steer a terminal, and no SVG may hold it."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
