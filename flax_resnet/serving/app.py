"""A network's page and its answers as JSON: an ASGI application with limits."""

import asyncio
import io
import json
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from flax_resnet.data.image_files import decode_reduced, resize_and_crop
from flax_resnet.inference.model import Model
from flax_resnet.inference.saliency import make_grad_cam, overlay
from flax_resnet.process.errors import UserError
from flax_resnet.report.encode import image_uri

logger = logging.getLogger(__name__)

MAX_BYTES = 20_000_000  # of a picture: above a phone's photographs
MAX_PIXELS = 2**25  # half of what `predict` takes: decoded in about 2.5 s and 0.9 GB at most
RECEIVE_SECONDS = 10.0  # from a request's header to its end
ANSWER_SECONDS = 15.0  # from there to the answer, those before it in the queue included
TOP = 5

Answer = dict[str, Any]

# The page may load nothing, and send pictures to where it came from.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}


def make_app(answer: Callable[[io.BytesIO, bool], Answer], page: str) -> Starlette:
    """The application.

    Args:
      answer: as `make_answer` makes it; called in one thread of its own, so that one picture is
        worked on at a time and the others wait.
      page: what GET / gives.
    """
    worker = ThreadPoolExecutor(1, "answers")

    async def show(_: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    async def predict(request: Request) -> Response:
        try:
            picture = await _received(request)
            wants_saliency = "saliency" in request.query_params
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await loop.run_in_executor(worker, answer, picture, wants_saliency)
        except UserError as error:
            status = 413 if error.field == "pixels" else 400
            raise HTTPException(status, f"the picture {error}") from error
        except TimeoutError as error:
            raise HTTPException(503, "busy with other pictures; try again") from error
        except asyncio.CancelledError as error:
            raise HTTPException(503, "the server is stopping") from error
        return _json(found)

    return Starlette(
        routes=[Route("/", show), Route("/predict", predict, methods=["POST"])],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )


def make_answer(model: Model) -> Callable[[io.BytesIO, bool], Answer]:
    """What answers a picture: a file's content, and whether to say where the network looks.

    Its answer has `predictions`, the likeliest classes with their probabilities. With saliency
    also `image`, what the network is shown, and for each class what speaks for it (Grad-CAM).
    It raises UserError as `decode_reduced` does.
    """
    explain = make_grad_cam(model)
    height, width, _ = model.image_shape
    blank = np.zeros((min(TOP, len(model.class_names)), height, width, 3), np.uint8)
    model.probabilities(blank[:1])  # compiles
    explain(blank, np.arange(len(blank)))

    def answer(picture: io.BytesIO, wants_saliency: bool) -> Answer:
        with picture:
            content = picture.getvalue()  # no copy
        if not content:
            raise UserError("is missing: send a file as the body", field="image")
        decoded, _ = decode_reduced(content, max_pixels=MAX_PIXELS)
        del content  # up to MAX_BYTES
        image = resize_and_crop(np.asarray(decoded), height, width)
        scores = model.probabilities(image[None])[0]
        best = np.argsort(-scores)[:TOP]
        predictions: list[Answer] = [
            {"class": model.class_names[i], "probability": float(scores[i])} for i in best
        ]
        if not wants_saliency:
            return {"predictions": predictions}
        images = np.repeat(image[None], len(best), axis=0)
        shown = overlay(images, explain(images, best))
        for prediction, pixels in zip(predictions, shown, strict=True):
            prediction["saliency"] = image_uri(pixels)
        return {"predictions": predictions, "image": image_uri(image)}

    return answer


async def _received(request: Request) -> io.BytesIO:
    """The body of a request in time and within MAX_BYTES; the rest of a longer one is dropped.

    A client that is still sending would not read an answer.
    """
    picture, size = io.BytesIO(), 0
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= MAX_BYTES:
                    picture.write(part)
                elif not picture.closed:
                    picture.close()
    except TimeoutError as error:
        raise HTTPException(408, f"not received within {RECEIVE_SECONDS:.0f} s") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client has gone") from error  # nobody reads it
    if size > MAX_BYTES:
        limit = f"{MAX_BYTES / 1e6:.0f} MB"
        raise HTTPException(413, f"the picture has {size / 1e6:,.1f} MB, the limit is {limit}")
    picture.seek(0)
    return picture


def _json(content: Answer, status: int = 200, headers: Any = None) -> Response:
    return Response(json.dumps(content) + "\n", status, headers, "application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    logger.error("%s", "".join(traceback.format_exception(error)))
    return _json({"error": f"a fault of the server's ({type(error).__name__})"}, 500)
