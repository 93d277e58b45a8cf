"""Names from outside: of datasets, classes and their folders."""

import unicodedata

from flax_resnet.process.errors import UserError, printable

# Control characters, halves of UTF-16 pairs (how Python holds bytes that are not UTF-8), line and
# paragraph separators.
_REFUSED = ("Cc", "Cs", "Zl", "Zp")


def check_name(name: str, what: str, field: str) -> None:
    """Refuses a name that would act on a terminal, break a line, or fit in no text file.

    Args:
        name: from a file, a folder or the command line.
        what: what it names, for the error.
        field: see `UserError`.

    Raises:
        UserError: it has such characters or no others than spaces.
    """
    if not name.strip() or any(unicodedata.category(char) in _REFUSED for char in name):
        raise UserError(
            f"{what} '{printable(name)}' is blank, has control characters or is not UTF-8; "
            "rename it",
            field=field,
        )
