"""The one exception that means "the user can fix this"."""

from typing import Literal

Code = Literal[
    "invalid",  # a value that is not allowed
    "unknown",  # a name that does not exist
    "missing",  # a file, field or argument that is needed and not there
    "unreadable",  # a file that cannot be read or is not what it should be
    "unwritable",  # a file or folder that cannot be written, a full disk included
    "corrupt",  # a file of a run that is not as it was written
    "conflict",  # two things that do not fit together: config and run, weights and network
    "busy",  # in use by another process
    "unavailable",  # the network, a server, a device, a package that is not there
    "not_finite",  # the loss or a gradient became NaN or infinite
    "out_of_memory",
]


class UserError(Exception):
    """Bad input, named in one line: what is wrong, which field or file, what to do.

    Names from outside may hold control characters: the message shows them escaped.
    Commands print the message without a traceback and exit with code 2.

    Attributes:
      code: the kind of fault, for programs and tests; the message is for people.
      field: the config field (`config.batch_size`), option (`--rows`) or file at fault, if one is.
    """

    def __init__(self, message: str, *, code: Code = "invalid", field: str | None = None) -> None:
        super().__init__(printable(message, keep="\n"))
        self.code: Code = code
        self.field = field


def reason(error: BaseException) -> str:
    """What a library's exception says, in one line short enough to print."""
    return shortened(str(error)) or type(error).__name__


def printable(text: str, keep: str = "") -> str:
    r"""Text with every character that does not print as in Python's repr: '\x1b', '\udcff'.

    A terminal obeys control characters, XML allows none, and no encoding has half of a UTF-16 pair.

    Args:
      text: any.
      keep: characters to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def shortened(text: str, length: int = 300) -> str:
    """A text in one line, without its end where it is too long to print."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
