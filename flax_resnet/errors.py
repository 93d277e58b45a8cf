"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """Bad input, named in one line: what is wrong, which field or file, what to do.

    Commands print the message without a traceback and exit with code 2.
    """
