"""A trained network as a program that runs without this package: StableHLO through jax.export."""

import json
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from flax_resnet.config.build import build_model
from flax_resnet.engine.steps import make_normalize, make_predict
from flax_resnet.inference.model import Model

PLATFORMS = ("cpu", "cuda", "tpu")

RUNNER = '''\
"""Classifies image files: python {name}.py IMAGE ... (needs jax, numpy and pillow)."""
import json, pathlib, sys
import numpy as np
from jax import export
from PIL import Image, ImageOps

program = pathlib.Path(__file__).with_suffix("")
about = json.loads(pathlib.Path(f"{{program}}.json").read_text())
network = export.deserialize(bytearray(program.read_bytes()))
size = tuple(about["image_shape"][1::-1])
images = [ImageOps.fit(Image.open(path).convert("RGB"), size, 3) for path in sys.argv[1:]]
for path, row in zip(sys.argv[1:], np.asarray(network.call(np.stack(images)))):
    print(f"{{path}}: {{about['class_names'][row.argmax()]}}, {{row.max():.2%}}")
'''


def to_stablehlo(model: Model) -> bytes:
    """The network as a serialized jax.export.Exported.

    It takes uint8 images [N, height, width, 3], any N, and gives float32 probabilities
    [N, classes], on PLATFORMS; weights and normalization are in it.
    """
    network = build_model(model.config, len(model.class_names))
    predict = make_predict(network, make_normalize(model.config.mean, model.config.std))
    variables = jax.tree.map(jnp.asarray, dict(model.variables))

    def probabilities(images: Any) -> jax.Array:
        return jax.nn.softmax(predict(variables, images))

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *model.image_shape), jnp.uint8)
    exported = export.export(jax.jit(probabilities), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def about(model: Model) -> str:
    """What the program's user must know, as JSON."""
    content = {
        "input": "uint8 RGB images [N, height, width, 3], any N",
        "output": "float32 probabilities [N, classes]",
        "image_shape": model.image_shape,
        "class_names": model.class_names,
        "platforms": PLATFORMS,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
