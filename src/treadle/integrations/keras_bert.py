"""BERT with a head for labels, of layers of Keras on any of its backends, and its weights by transformers' names.

Imports nothing but Keras, so that it also runs in an environment that has TensorFlow in place of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from treadle.core.errors import UserError

_ACTIVATIONS = {"gelu": lambda x: keras.activations.gelu(x, approximate=False), "relu": keras.activations.relu}


def build(config: Any, seed: int = 0) -> Any:
    """BERT with a head, as a configuration of transformers says; takes ``ids`` and ``mask`` of shape (texts, tokens),
    gives logits of shape (texts, labels).

    ``UserError`` for a configuration that is not of a BERT with absolute positions.
    """
    if config.model_type != "bert" or getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise UserError(f"develop.fit: keras knows bert with absolute positions; the base model is {config.model_type}")
    if config.hidden_act not in _ACTIVATIONS:
        raise UserError(f"develop.fit: keras knows the activations {', '.join(_ACTIVATIONS)}, not {config.hidden_act}")
    seeds = iter(range(seed << 16, (seed << 16) + (1 << 16)))  # each layer draws its own

    def dropped(x: Any, share: float) -> Any:
        return keras.layers.Dropout(share, seed=next(seeds))(x)

    def norm(x: Any, name: str) -> Any:
        return keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name=name)(x)

    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
    x = dropped(norm(Embeddings(config, name="embeddings")(ids), "embeddings_norm"), config.hidden_dropout_prob)
    heads = config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        attention = keras.layers.MultiHeadAttention(
            heads,
            config.hidden_size // heads,
            dropout=config.attention_probs_dropout_prob,
            seed=next(seeds),
            name=f"{layer}_attention",
        )
        seen = dropped(attention(x, x, attention_mask=mask[:, None, :]), config.hidden_dropout_prob)
        x = norm(x + seen, f"{layer}_attention_norm")
        wide = keras.layers.Dense(
            config.intermediate_size, activation=_ACTIVATIONS[config.hidden_act], name=f"{layer}_intermediate"
        )(x)
        narrow = keras.layers.Dense(config.hidden_size, name=f"{layer}_output")(wide)
        x = norm(x + dropped(narrow, config.hidden_dropout_prob), f"{layer}_output_norm")
    pooled = keras.layers.Dense(config.hidden_size, activation="tanh", name="pooler")(x[:, 0])
    share = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return keras.Model([ids, mask], keras.layers.Dense(config.num_labels, name="classifier")(dropped(pooled, share)))


class Embeddings(keras.layers.Layer):  # type: ignore[misc]  # skipped by mypy, as it is not always there
    """Words, places and the one kind of text, summed."""

    def __init__(self, config: Any, **named: Any) -> None:
        super().__init__(**named)
        self.words = keras.layers.Embedding(config.vocab_size, config.hidden_size)
        self.places = keras.layers.Embedding(config.max_position_embeddings, config.hidden_size)
        self.kinds = keras.layers.Embedding(config.type_vocab_size, config.hidden_size)

    def build(self, shape: Any) -> None:
        """Make the three tables."""
        for table in (self.words, self.places, self.kinds):
            table.build(shape)
        super().build(shape)

    def call(self, ids: Any) -> Any:
        """Vectors of shape (texts, tokens, width)."""
        places = keras.ops.arange(keras.ops.shape(ids)[1], dtype="int32")
        return self.words(ids) + self.places(places)[None] + self.kinds(keras.ops.zeros_like(ids))


def fill(network: Any, weights: Mapping[str, Any]) -> None:
    """Give a network that ``build`` made its weights: numpy arrays by the name that transformers has for each.

    ``UserError`` where there is one too few or too many.
    """
    given = dict(weights)
    for name, variable in named_weights(network):
        value = given.pop(name, None)
        if value is None:
            raise UserError(f"the model has no {name}; expected a BERT that classifies")
        variable.assign((value.T if turned(name, value) else value).reshape(variable.shape))
    if given:
        raise UserError(f"develop.fit: keras has no place for {next(iter(given))} of the base model")


def turned(name: str, value: Any) -> bool:
    """Linear layers of torch have (out, in), those of Keras (in, out), the heads' axis split."""
    return value.ndim == 2 and not name.startswith("bert.embeddings.")


def named_weights(network: Any) -> Iterator[tuple[str, Any]]:
    """Each weight of the network, by the name that transformers has for it."""
    tables = network.get_layer("embeddings")
    for place, table in (("word", tables.words), ("position", tables.places), ("token_type", tables.kinds)):
        yield f"bert.embeddings.{place}_embeddings.weight", table.embeddings
    pairs = {"embeddings_norm": "bert.embeddings.LayerNorm", "pooler": "bert.pooler.dense", "classifier": "classifier"}
    for layer in range(sum(each.name.endswith("_attention") for each in network.layers)):
        before = f"bert.encoder.layer.{layer}"
        attention = network.get_layer(f"{layer}_attention")
        parts = {"self.query": attention.query_dense, "self.key": attention.key_dense}
        parts |= {"self.value": attention.value_dense, "output.dense": attention.output_dense}
        for place, dense in parts.items():
            yield f"{before}.attention.{place}.weight", dense.kernel
            yield f"{before}.attention.{place}.bias", dense.bias
        pairs |= {
            f"{layer}_attention_norm": f"{before}.attention.output.LayerNorm",
            f"{layer}_intermediate": f"{before}.intermediate.dense",
            f"{layer}_output": f"{before}.output.dense",
            f"{layer}_output_norm": f"{before}.output.LayerNorm",
        }
    for ours, theirs in pairs.items():
        layer_ = network.get_layer(ours)
        yield f"{theirs}.weight", layer_.gamma if hasattr(layer_, "gamma") else layer_.kernel
        yield f"{theirs}.bias", layer_.beta if hasattr(layer_, "beta") else layer_.bias
