"""The part of a model's table of words that a training needs.

Half of a small encoder's parameters are rows of its table, and few of those words stand in the texts it is taught by.
The others get no gradient, yet the optimizer holds and walks all of them in every step. While a model trains, its table
has the rows that its texts look up; the others stay as the base had them. (Under AdamW they would only decay.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def words_of(model: Any) -> Any:
    """The module that looks a model's words up; None where it does not say which. A class of one's own need not."""
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # the latter is how transformers says that it cannot tell
        return None


def table_of(model: Any) -> torch.nn.Embedding | None:
    """The table of a model's words, where the model does nothing with it but look rows up: a head that shares it
    multiplies by it. None where there is none, or it is fixed."""
    import torch

    words = words_of(model)
    if type(words) is not torch.nn.Embedding:
        return None
    holders = [module for module in model.modules() if any(p is words.weight for p in module.parameters(recurse=False))]
    return words if holders == [words] and words.weight.requires_grad else None


class WordTable:
    """The rows that some texts look up, in place of the whole table; ``texts`` as ids, all that the model will see.
    None: it is not known, and the table stays whole."""

    def __init__(self, texts: Iterable[Sequence[int]] | None) -> None:
        self._ids = None if texts is None else {id_ for text in texts for id_ in text}
        self._whole: torch.Tensor | None = None
        self._hook: Any = None

    @property
    def highest(self) -> int:
        """The largest of the ids; 0 where they are not known."""
        return max(self._ids or (0,))

    def narrow(self, model: Any) -> Any:
        """The model with these rows alone. Another id raises ``IndexError`` when it is looked up. A model that is not
        of transformers stays as it is: it may look rows up in a way of its own."""
        import torch

        words = table_of(model)
        if self._ids is None or words is None or not type(model).__module__.startswith("transformers."):
            return model
        whole, padding = words.weight.data, words.padding_idx
        fillers = {0, getattr(model.config, "pad_token_id", None), padding}  # 0: of a tokenizer without any
        ids = torch.tensor(sorted(self._ids | (fillers - {None})), device=whole.device)
        places = torch.full((len(whole),), len(ids), device=whole.device)  # no row of the narrow table
        places[ids] = torch.arange(len(ids), device=whole.device)
        self._whole, self._padding, self._rows = whole, padding, ids
        self._hook = words.register_forward_pre_hook(lambda _words, given: (places[given[0]],))
        words.weight = torch.nn.Parameter(whole[ids])
        words.num_embeddings = len(ids)
        words.padding_idx = None if padding is None else int(places[padding])
        return model

    def widen(self, model: Any) -> Any:
        """The model that was narrowed last, with its whole table again: learned rows, and the others as they were."""
        import torch

        if self._whole is None:
            return model
        words = model.get_input_embeddings()
        self._hook.remove()
        self._whole[self._rows] = words.weight.data.to(self._whole)
        words.weight = torch.nn.Parameter(self._whole)
        words.num_embeddings, words.padding_idx = len(self._whole), self._padding
        self._whole = None
        return model
