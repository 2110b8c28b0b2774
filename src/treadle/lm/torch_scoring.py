"""Log-probabilities of continuations by a causal model of torch, each common beginning computed once.

Logits are worked out for the tokens that are asked about alone, a block at a time, so that those of a long text fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.lm.token_tree import TokenTree, common_start, grow

_WORTH_KEEPING = 16  # tokens at the start of all prompts
_TOGETHER = 320  # tokens of a row: enough to use the processor, few enough that attention costs little
_ALONE = 96  # tokens of its own with which a sequence fills a row, and needs no mask there
_BLOCK = 128  # tokens whose logits are there at once

Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]


class TreeScorer:
    """``plain``: the model keeps plain keys and values, of which a tail can be taken off, takes a mask of its own, and
    its logits are its head's output; other models are asked for one pair at a time."""

    def __init__(self, model: Any, device: str, *, plain: bool) -> None:
        self._model, self._device, self._plain = model, device, plain
        self._kept: list[int] = []  # what ``_past`` is of
        self._past: Any = None

    def score_some(self, pairs: Pairs) -> list[list[float]]:
        """Rows for the first pairs, as many as are computed together; at least one."""
        import torch

        with torch.inference_mode():
            if not self._plain:
                return [self._alone(*pairs[0])]
            start = self._keep(pairs)
            asked = [[*prompt[start:], *continuation[:-1]] for prompt, continuation in pairs]
            tree = grow(asked, _TOGETHER, _ALONE)
            hidden = self._hidden(tree, start)
            return self._rows(tree, hidden, pairs[: len(tree.paths)], start)

    def forget(self) -> None:
        """Give back the memory of what prompts began with."""
        self._kept, self._past = [], None

    def _alone(self, prompt: Sequence[int], continuation: Sequence[int]) -> list[float]:
        import torch

        ids = torch.tensor([[*prompt, *continuation]], device=self._device)
        output = self._model(input_ids=ids[:, :-1], logits_to_keep=len(continuation), use_cache=False)
        logprobs = output.logits[0].float().log_softmax(-1)
        found: list[float] = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist()
        return found

    def _keep(self, pairs: Pairs) -> int:
        """How many tokens at the start of all prompts are computed and kept; 0 where that does not pay."""
        import torch

        wanted = _shared_start([prompt for prompt, _ in pairs])
        prompt = list(pairs[0][0][:wanted])
        known = common_start(self._kept, prompt)
        if wanted < _WORTH_KEEPING:
            self.forget()
            return 0
        if known < len(self._kept):
            if known < _WORTH_KEEPING:
                self.forget()
                known = 0
            else:
                self._past.crop(known - len(self._kept))
                self._kept = self._kept[:known]
        if wanted - known >= _WORTH_KEEPING:
            ids = torch.tensor([prompt[known:]], device=self._device)
            past = {"past_key_values": self._past} if known else {}
            self._past = self._model.base_model(input_ids=ids, use_cache=True, **past).past_key_values
            self._kept = prompt
        return len(self._kept)

    def _hidden(self, tree: TokenTree, start: int) -> Any:
        """The model's last states for the tokens of a tree behind ``start`` kept ones, of shape (n, width)."""
        import torch

        ids = torch.tensor([tree.ids], device=self._device)
        more: dict[str, Any] = {"use_cache": False}
        if start:
            more = {"past_key_values": self._past, "use_cache": True}
        if tree.branches:
            seen = torch.ones((len(tree.ids), start), dtype=torch.bool)
            allowed = torch.cat([seen, torch.from_numpy(tree.allowed())], dim=1).to(self._device)
            dtype = self._model.dtype
            mask = torch.zeros(allowed.shape, dtype=dtype, device=self._device)
            mask.masked_fill_(~allowed, torch.finfo(dtype).min)
            places = torch.from_numpy(tree.depths() + start).to(self._device)
            more |= {"attention_mask": mask[None, None], "position_ids": places[None]}
        hidden = self._model.base_model(input_ids=ids, **more).last_hidden_state[0]
        if start:
            self._past.crop(-len(tree.ids))  # the tokens just added go again
        return hidden

    def _rows(self, tree: TokenTree, hidden: Any, pairs: Pairs, start: int) -> list[list[float]]:
        import torch

        before = [
            path[len(prompt) - start - 1 :] for path, (prompt, _) in zip(tree.paths, pairs, strict=True)
        ]  # the token after which each token of the continuation comes
        nodes = sorted({node for path in before for node in path})
        rank = {node: place for place, node in enumerate(nodes)}
        where = [rank[node] for path in before for node in path]
        tokens = [token for _, continuation in pairs for token in continuation]
        chosen = sorted(range(len(where)), key=where.__getitem__)
        head, found, done = self._model.get_output_embeddings(), [0.0] * len(where), 0
        for first in range(0, len(nodes), _BLOCK):
            block = nodes[first : first + _BLOCK]
            logprobs = head(hidden[block]).float().log_softmax(-1)
            end = done
            while end < len(chosen) and where[chosen[end]] < first + len(block):
                end += 1
            places = chosen[done:end]
            rows = torch.tensor([where[place] - first for place in places], device=self._device)
            columns = torch.tensor([tokens[place] for place in places], device=self._device)
            for place, value in zip(places, logprobs[rows, columns].tolist(), strict=True):
                found[place] = value
            done = end
        ends = iter(found)
        return [[next(ends) for _ in continuation] for _, continuation in pairs]


def _shared_start(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; at least one is left of each prompt."""
    if len(prompts) < 2:
        return 0
    first, last = min(map(list, prompts)), max(map(list, prompts))
    return min(common_start(first, last), min(len(prompt) for prompt in prompts) - 1)
