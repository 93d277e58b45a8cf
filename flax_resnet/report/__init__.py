"""Documents as Markdown and HTML."""
