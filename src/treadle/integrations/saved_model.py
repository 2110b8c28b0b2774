"""A BERT classifier as a SavedModel, written and checked by TensorFlow. Runs where TensorFlow and Keras are installed:

    python -m treadle.integrations.saved_model < job.json

Needs nothing else; the job comes on stdin, what was found goes to stdout as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SIGNATURE = "serving_default"


def write(job: dict[str, Any], out: Path) -> None:
    """Write the model with one signature: ``input_ids``, ``attention_mask`` -> ``logits``, ``probabilities``, ``label``
    and the ``release`` that answers, each with a row a text."""
    import tensorflow as tf

    from treadle.integrations.keras_bert import build, fill
    from treadle.lm.safetensors_folder import tensors

    network = build(SimpleNamespace(**job["config"]))
    fill(network, {each.name: each.read() for each in tensors(Path(job["model"]))})
    labels, release = tf.constant(job["labels"]), tf.constant(job["release"])

    def serve(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        logits = network([input_ids, attention_mask], training=False)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "label": tf.gather(labels, tf.argmax(logits, axis=-1)),
            "release": tf.fill([tf.shape(input_ids)[0]], release),
        }

    given = [tf.TensorSpec((None, None), tf.int32, name=name) for name in ("input_ids", "attention_mask")]
    module = tf.Module()  # Keras' own archive writes the variables in another order each time
    module.held = [weight.value for weight in network.weights]
    module.serve = tf.function(serve, input_signature=given, autograph=False)
    tf.saved_model.save(module, str(out), signatures={SIGNATURE: module.serve})
    (out / "fingerprint.pb").unlink(missing_ok=True)  # a random name among what nobody here reads


def check(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Open what was written, as any TensorFlow program would, and compare its outputs with those that torch gave."""
    import numpy as np
    import tensorflow as tf

    opened = tf.saved_model.load(str(out))
    served = opened.signatures[SIGNATURE]
    worst, inputs, told = 0.0, 0, True
    with np.load(job["expected"]) as expected:
        for number in range(len(expected.files) // 3):
            ids, mask, logits = (expected[f"{name}_{number}"] for name in ("ids", "mask", "logits"))
            found = served(input_ids=tf.constant(ids), attention_mask=tf.constant(mask))
            worst = max(worst, float(np.abs(found["logits"].numpy() - logits).max()))
            inputs += len(ids)
            named = [job["labels"][place] for place in found["logits"].numpy().argmax(-1)]
            told = told and [each.decode() for each in found["label"].numpy()] == named
            told = told and {each.decode() for each in found["release"].numpy()} == {job["release"]}
    return {
        "worst": worst,
        "inputs": inputs,
        "told": told,
        "tensorflow": tf.__version__,
        "signature": {
            "inputs": _described(served.structured_input_signature[1]),
            "outputs": _described(served.structured_outputs),
        },
    }


def _described(specs: dict[str, Any]) -> dict[str, str]:
    """Type and shape by name, the shape's unknown sizes as ?."""
    return {
        name: f"{spec.dtype.name}[{','.join('?' if size is None else str(size) for size in spec.shape)}]"
        for name, spec in sorted(specs.items())
    }


def main() -> int:
    """Do one job; 2 and a line on stderr where the model is none that this can write."""
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    from treadle.core.errors import UserError

    job = json.load(sys.stdin)
    out = Path(job["out"])
    try:
        write(job, out)
        found = check(job, out)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
