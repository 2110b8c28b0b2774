"""The programs that go with an ONNX package, by the shape of its model: short, and with no Treadle in them."""

from __future__ import annotations

_HEAD = '''"""%s: python example.py TEXT. Needs onnxruntime and tokenizers alone."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE, TEXT = Path(__file__).parent, " ".join(sys.argv[1:])
package = json.loads((HERE / "onnx.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))


def opened(name):
    return onnxruntime.InferenceSession(str(HERE / name), providers=["CPUExecutionProvider"])


'''
_READ = """tokenizer.no_padding()
tokenizer.enable_truncation(package["max_length"])
tokenizer.encode_special_tokens = True  # a text that spells [SEP] is still one text
ids = np.array([tokenizer.encode(TEXT).ids], dtype=np.int64)
"""
_CLASSIFIER = (
    _HEAD % "The label of a text"
    + _READ
    + """given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
(logits,) = opened("model.onnx").run(["logits"], given)
powers = np.exp(logits[0] - logits[0].max())
names = json.loads((HERE / "config.json").read_text(encoding="utf-8"))["id2label"]
scores = {names[str(place)]: float(score) for place, score in enumerate(powers / powers.sum())}
print(json.dumps({"release": package["release"], "answer": max(scores, key=scores.get), "scores": scores}))
"""
)
_ENCODER = (
    _HEAD % "The vector of a text"
    + _READ
    + """(hidden,) = opened("model.onnx").run(["hidden"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
mean = hidden[0].mean(axis=0)
vector = mean / np.linalg.norm(mean)
print(json.dumps({"release": package["release"], "answer": vector.tolist()}))
"""
)
_DECODER = (
    _HEAD % "The answer to a question"
    + """session = opened("model.onnx")
past = [each for each in session.get_inputs() if each.name.startswith("past_")]
past = {each.name: np.zeros((1, each.shape[1], 0, each.shape[3]), dtype=np.float32) for each in past}
new = tokenizer.encode(package["before"] + TEXT + package["after"], add_special_tokens=False).ids
answer, seen = [], 0
while len(answer) < package["max_tokens"]:
    seen += len(new)
    given = {"input_ids": np.array([new], dtype=np.int64), "attention_mask": np.ones((1, seen), dtype=np.int64)}
    logits, *kept = session.run(None, {**given, **past})
    past, new = dict(zip(past, kept)), [int(logits[0, -1].argmax())]
    if new[0] in package["stop"]:
        break
    answer += new
print(json.dumps({"release": package["release"], "answer": tokenizer.decode(answer)}))
"""
)
_BOTH = (
    _HEAD % "What the model makes of a text"
    + """ids = np.array([tokenizer.encode(package["before"] + TEXT).ids], dtype=np.int64)
mask = np.ones_like(ids)
(hidden,) = opened("encoder.onnx").run(None, {"input_ids": ids, "attention_mask": mask})
decoder, answer = opened("decoder.onnx"), list(package["begin"])
while len(answer) < package["max_tokens"] + len(package["begin"]):
    given = {"input_ids": np.array([answer], dtype=np.int64), "hidden": hidden, "attention_mask": mask}
    new = int(decoder.run(None, given)[0][0, -1].argmax())
    if new in package["stop"]:
        break
    answer.append(new)
print(json.dumps({"release": package["release"], "answer": tokenizer.decode(answer)}))
"""
)
TEXTS = {"classifier": _CLASSIFIER, "encoder": _ENCODER, "decoder": _DECODER, "encoder-decoder": _BOTH}
