"""Text from outside (file, class and run names) made safe to show."""

import html
import re

from flax_resnet.process.errors import printable


def escape_html(text: str) -> str:
    """Text as the content or attribute of an HTML element; line breaks stay."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def escape_markdown(text: str) -> str:
    """Text without markup in Markdown, on one line."""
    return re.sub(r"([\\`*_<>|\[\]~#])", r"\\\1", printable(" ".join(text.split())))
