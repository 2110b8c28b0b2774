"""The worker's side of the vLLM engine: vLLM's own loop, one step at a time. Runs where vLLM is installed.

Tokens go in and out; text, stop strings and checks are the other side's business, as with every worker.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.integrations.vllm import VllmSettings
from treadle.lm.adapter import Adapter, layers_of
from treadle.lm.engine_settings import convert_settings
from treadle.lm.engine_wire import Finish, Generate, LoadAdapter, Tokens
from treadle.lm.engine_worker import first_line
from treadle.lm.safetensors_folder import tensors
from treadle.lm.schema_grammar import grammar_of

_TYPES = {"auto": "auto", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_MOST_LOGPROBS = 20
_NO_LAYERS = {"lm_head", "embed_out", "embed_tokens", "wte", "wpe"}
_MOST_ADAPTERS = 16  # loaded at a time; vLLM would put an older one aside, and read it again from where it lay
_CANNOT = "the vllm engine only generates and scores; choose engine: transformers"
_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length", "abort": "cancelled"}


class VllmBackend:
    """One vLLM engine, in this process and thread."""

    def __init__(self, folder: Path, threads: int | None, settings: VllmSettings) -> None:
        import torch
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = EngineArgs(
            model=str(folder),
            dtype=_TYPES[settings.precision],
            max_model_len=settings.max_length,
            max_num_seqs=settings.max_sequences,
            enable_prefix_caching=settings.prefix_caching,
            gpu_memory_utilization=settings.memory,
            enforce_eager=not settings.compile,
            load_format="safetensors",
            trust_remote_code=False,
            generation_config="vllm",  # what a folder says of sampling is the release's business
            logprobs_mode="raw_logprobs",
            max_logprobs=_MOST_LOGPROBS,
            structured_outputs_config={"backend": "xgrammar"},
            disable_log_stats=True,
            seed=0,
            enable_lora=settings.enable_lora,
            max_loras=settings.max_loras,
            max_lora_rank=settings.max_lora_rank,
            max_cpu_loras=max(_MOST_ADAPTERS, settings.max_loras),
            # Beside the head vLLM's processor kernels cannot tell the probabilities of a prompt's tokens.
            lora_target_modules=sorted(_layers(folder)) if settings.enable_lora else None,
        )
        try:
            self._engine = LLMEngine.from_engine_args(arguments)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{folder}: vLLM cannot open it ({first_line(error)})") from None
        if threads is not None:
            torch.set_num_threads(threads)
        # One less than it holds: what is scored has to leave room for a token of an answer.
        self.context_length = int(self._engine.vllm_config.model_config.max_model_len) - 1
        self._most = settings.max_sequences
        self._alternatives: dict[int, int] = {}  # of the answers under way, by number
        self._told: list[Any] = []  # what came for answers under way while something was scored
        self._cancelled: set[int] = set()
        self._ended: list[Tokens] = []  # of those, what is to be said of them
        self._scored = 0
        self._most_rank = settings.max_lora_rank if settings.enable_lora else 0
        self._adapters: dict[int, Any] = {}  # vLLM's name for each, by number
        self._adapted = _layers(folder) if settings.enable_lora else set()
        for left in self._engine.list_loras() if settings.enable_lora else ():
            self._engine.remove_lora(left)  # what it warmed up with, if it left any
        self.add(Generate(0, [1], 2, 0.0, 1.0, 0, False, []))
        while self.pending() != (0, 0):
            self.step()

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> VllmBackend:
        """As ``Backend.open``."""
        return cls(folder, threads, convert_settings("vllm", VllmSettings, settings))

    def add(self, request: Generate) -> None:
        """As ``Backend.add``."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        # Made and checked here: vLLM finds out about some bad schemas in its loop, and ends with them.
        grammar = None if request.schema is None else grammar_of(request.schema)
        params = SamplingParams(
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            logprobs=request.alternatives if request.logprobs else None,
            stop_token_ids=request.stop_ids,
            ignore_eos=True,  # these ids say where it ends, and no others
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            structured_outputs=None if grammar is None else StructuredOutputsParams(grammar=grammar),
        )
        try:
            self._submit(str(request.number), request.prompt_ids, params, request.adapter)
        except (ValueError, TypeError) as error:
            raise UserError(f"vLLM refuses the request ({first_line(error)})") from None
        self._alternatives[request.number] = request.alternatives

    def _submit(self, name: str, ids: Sequence[int], params: Any, adapter: int) -> None:
        by = self._adapters[adapter] if adapter else None
        self._engine.add_request(name, {"prompt_token_ids": list(ids)}, params, lora_request=by)

    def load_adapter(self, message: LoadAdapter) -> None:
        """As ``LoadsAdapters.load_adapter``: vLLM reads a copy of the bytes that were verified.

        It keeps keys and values apart by the name it is given here, the digest, so no prefix is another adapter's.
        """
        from vllm.lora.request import LoRARequest

        where = message.folder
        if message.rank > self._most_rank:
            raise UserError(
                f"{where}: an adapter of rank {message.rank}; engine vllm takes rank {self._most_rank} at most"
                " (max_lora_rank); set deploy.adapter: merged"
            )
        if len(self._adapters) >= _MOST_ADAPTERS:
            raise UserError(f"{where}: engine vllm has {_MOST_ADAPTERS} adapters loaded already; close a release first")
        files = Adapter(Path(where), message.digest, message.base, message.rank).read()
        with tempfile.TemporaryDirectory(prefix="treadle-") as copy:
            for name, data in files.items():
                (Path(copy) / name).write_bytes(data)
            if others := {name.rpartition(".")[2] for name in layers_of(Path(copy))} - self._adapted:
                raise UserError(
                    f"{where}: an adapter of {', '.join(sorted(others))}, which engine vllm leaves as it is"
                )
            asked = LoRARequest(message.digest, message.adapter, copy)
            try:
                self._engine.add_lora(asked)
            except Exception as error:  # it raises what it likes for weights that do not fit
                raise UserError(f"{where}: vLLM cannot load the adapter ({first_line(error)})") from None
        if message.adapter not in self._engine.list_loras():
            raise UserError(f"{where}: vLLM did not load the adapter and does not say why")
        self._adapters[message.adapter] = asked

    def drop_adapter(self, adapter: int) -> None:
        """As ``LoadsAdapters.drop_adapter``; what was asked by it was cancelled before."""
        self._end_cancelled()
        self._engine.remove_lora(adapter)
        del self._adapters[adapter]

    def cancel(self, number: int) -> None:
        """As ``Backend.cancel``."""
        if number in self._alternatives:
            self._cancelled.add(number)

    def pending(self) -> tuple[int, int]:
        """As ``Backend.pending``."""
        count = len(self._alternatives) + len(self._ended)
        running = min(self._most, count)
        return running, count - running

    def step(self) -> list[Tokens]:
        """As ``Backend.step``."""
        self._end_cancelled()
        found, self._ended = self._ended, []
        outputs, self._told = self._told, []
        if self._engine.has_unfinished_requests():
            outputs += self._engine.step()
        for output in outputs:
            if (number := int(output.request_id)) in self._alternatives:
                found.append(_tokens(number, output.outputs[0], self._alternatives[number]))
                if found[-1].finish is not None:
                    del self._alternatives[number]
        return found

    def _end_cancelled(self) -> None:
        for number in sorted(self._cancelled):
            self._engine.abort_request([str(number)])
            if self._alternatives.pop(number, None) is not None:
                self._ended.append(Tokens(number, [], [], "cancelled"))
        self._cancelled.clear()

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """As ``Backend.score``."""
        return self.score_with(0, pairs)

    def score_with(self, adapter: int, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """As ``LoadsAdapters.score_with``."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, ignore_eos=True, detokenize=False)
        rows: dict[str, list[float]] = {}
        names = []
        for prompt, continuation in pairs:
            self._scored += 1
            names.append(f"score-{self._scored}")
            self._submit(names[-1], [*prompt, *continuation], params, adapter)
        while len(rows) < len(pairs):
            for output in self._engine.step():
                if not output.request_id.startswith("score-"):
                    self._told.append(output)
                elif output.finished:
                    rows[output.request_id] = _prompt_logprobs(output)
        return [rows[name][len(prompt) :] for name, (prompt, _) in zip(names, pairs, strict=True)]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Refused."""
        raise UserError(_CANNOT)

    def classify(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        """Refused."""
        raise UserError(_CANNOT)


def _layers(folder: Path) -> set[str]:
    """Last names of the matrices that may have an adapter."""
    names = {each.name.removesuffix(".weight").rpartition(".")[2] for each in tensors(folder) if len(each.shape) == 2}
    return names - _NO_LAYERS


def _tokens(number: int, output: Any, alternatives: int) -> Tokens:
    """``alternatives``: how many are told of; vLLM tells of the one chosen as well, by its rank."""
    ids = list(output.token_ids)
    told = output.logprobs or []
    logprobs = [float(at[token].logprob) for token, at in zip(ids, told, strict=False)]
    others = []
    for at in told if alternatives else ():
        ranked = sorted((value.rank, token, float(value.logprob)) for token, value in at.items())
        others.append([(token, logprob) for _, token, logprob in ranked[:alternatives]])
    return Tokens(number, ids, logprobs, _FINISHES.get(output.finish_reason), others)


def _prompt_logprobs(output: Any) -> list[float]:
    """One a token of the prompt, the first of no meaning."""
    pairs = zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
    return [float(at[token].logprob) if at is not None else 0.0 for token, at in pairs]
