"""Text from outside (file, class and run names) made safe to show."""

import html
import re


def printable(text: str) -> str:
    r"""Text with every character that does not print as in Python's repr: '\x1b', '\udcff'.

    XML allows no control characters, and no encoding has half of a UTF-16 pair.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape_html(text: str) -> str:
    """Text as the content or attribute of an HTML element; line breaks stay."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def escape_markdown(text: str) -> str:
    """Text without markup in Markdown, on one line."""
    return re.sub(r"([\\`*_<>|\[\]~#])", r"\\\1", printable(" ".join(text.split())))
