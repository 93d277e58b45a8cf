"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """Bad input, named in one line: what is wrong, which field or file, what to do.

    Commands print the message without a traceback and exit with code 2.
    """


def reason(error: BaseException) -> str:
    """What a library's exception says, in one line short enough to print."""
    return shortened(str(error)) or type(error).__name__


def shortened(text: str, length: int = 300) -> str:
    """A text in one line, without its end where it is too long to print."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
