"""A page to try a trained network, and its answers as JSON."""

import argparse
import os

from flax_resnet.commands.arguments import add_run
from flax_resnet.process.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_run(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0: for all who reach this machine (default: %(default)s, "
        "this machine alone)",
    )
    parser.add_argument(
        "--port", type=_port, default=8000, help="0: any that is free (default: %(default)s)"
    )
    parser.add_argument(
        "--draw",
        action=argparse.BooleanOptionalAction,
        help="a canvas to draw on, white on black (default: for digits and MNIST)",
    )


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, from 0 to 65535")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C, and ends the process."""
    try:
        from flax_resnet.serving.server import listen, serve, url_of
    except ImportError as error:
        raise UserError(
            "serve needs the packages starlette and uvicorn: pip install starlette uvicorn",
            code="unavailable",
        ) from error
    from flax_resnet.inference.model import load
    from flax_resnet.process.compile_cache import keep_compiled
    from flax_resnet.process.output import STDOUT, print_line
    from flax_resnet.process.paths import default_cache_dir
    from flax_resnet.serving.app import make_answer, make_app
    from flax_resnet.serving.page import make_page

    keep_compiled(default_cache_dir())
    with listen(args.host, args.port) as listening:
        model = load(args.workdir, args.checkpoint)
        answer, page = make_answer(model), make_page(model, args.workdir, args.draw)
        print_line(f"{url_of(listening)} shows {args.workdir}; Ctrl-C ends it", STDOUT)
        serve(make_app(answer, page), listening)
    os._exit(0)  # not after a picture that is still worked on; nothing is left half done
