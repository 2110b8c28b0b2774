"""What every use of torch here shares: threads and seed of a session, the number type, loading and saving whole."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from treadle.core import memory
from treadle.core.errors import MissingExtra, UserError
from treadle.lm.adapter import adapter_of, merge
from treadle.lm.own_model import make_known
from treadle.lm.safetensors_folder import check_folder

Precision = Literal["auto", "bfloat16", "float32"]
_NATIVE_BFLOAT16 = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
_WIDE = 384  # tokens of a row
_NEW = "parameters_not_in_folder"  # of a model that was loaded
_HEADS = (
    "qa_outputs",
    "classifier",
    "score",
    "classification_head",
)  # of a model that does not say which part is its base
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "added_tokens.json",
)


def patient_threads() -> None:
    """Let OpenMP's threads spin only for some microseconds while they wait for each other, then sleep, unless the user
    says otherwise.

    Tokens a second of MiniLM with two threads on two cores, alone and beside two busy processes: never spinning 1,580
    and 854, these 2,000 turns 1,943 and 796, 10,000 turns 1,818 and 467, libgomp's own 300,000 2,066 and a sixth. Only
    what is set before torch is first loaded counts.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # for other runtimes than libgomp, which goes by the count
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def libraries() -> tuple[Any, Any]:
    """torch and transformers; ``MissingExtra`` without one of them."""
    try:
        patient_threads()
        import torch

        if not torch.cuda.is_available():  # or DeepSpeed, which some models import, says so on standard output
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    return torch, transformers


@contextmanager
def session(threads: int | None, seed: int) -> Iterator[int]:
    """Threads (``None``: all this process may use) and random state for a block of work, put back after it.

    Yields the number of threads, which belongs into the record: other counts can add up in another order.
    """
    patient_threads()
    import torch

    count = threads or len(os.sched_getaffinity(0))
    before, state = torch.get_num_threads(), torch.get_rng_state()
    repeatable = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(count)
    torch.manual_seed(seed)
    if torch.cuda.is_available():  # sums on a graphics card come out different each time unless one asks
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield count
    finally:
        torch.use_deterministic_algorithms(repeatable)
        torch.set_num_threads(before)
        torch.set_rng_state(state)


def random_state(device: str) -> dict[str, Any]:
    """Where the random numbers are, of this processor and of the graphics card where that is the device."""
    import torch

    found = {"random": torch.get_rng_state()}
    if device == "cuda":
        found["random.cuda"] = torch.cuda.get_rng_state()
    return found


def restore_random_state(found: Mapping[str, Any]) -> None:
    """Go on from there, as far as it is known."""
    import torch

    with suppress(KeyError):  # a checkpoint that has none, or one from another device
        torch.set_rng_state(found["random"])
        torch.cuda.set_rng_state(found["random.cuda"])


def release_memory() -> None:
    """Give freed memory back to the system: the allocator would keep gigabytes that an engine needs next."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    memory.give_back()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a graphics card or here."""
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def device() -> Literal["cpu", "cuda"]:
    """Where to train: on a graphics card that torch sees, else here. ``CUDA_VISIBLE_DEVICES=`` hides it."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def attention(device: str, width: int) -> Literal["eager", "sdpa"]:
    """How transformers shall attend in training, in rows of ``width`` tokens, where ``block_attention`` does not. On a
    CPU, there and back, scaled_dot_product_attention takes half the time of plain batched matmuls at 512 tokens, and
    four times as long at 64."""
    return "sdpa" if device == "cuda" or width >= _WIDE else "eager"


def precision(wanted: Precision, device: str = "cpu") -> Literal["bfloat16", "float32"]:
    """bfloat16 where the processor multiplies it in hardware; emulated, it is slower than float32."""
    if wanted != "auto":
        return wanted
    import torch

    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bfloat16" if any(capabilities.get(name) for name in _NATIVE_BFLOAT16) else "float32"


def load(folder: Path, model_class: Any, **settings: Any) -> Any:
    """A transformers model in float32 from a local folder of safetensors; ``UserError`` when it is none.

    That of a release with an adapter beside its base has the adapter in it: there is no other way to load one here.
    """
    import torch

    check_folder(folder)
    own = make_known(folder)
    if own:
        settings["ignore_mismatched_sizes"] = True  # its head may be of another number of labels
    try:
        with _quiet():
            model, told = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **settings,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot be loaded with {model_class.__name__} ({_why(error)})") from None
    setattr(model, _NEW, frozenset(told["missing_keys"]) | {name for name, *_ in told["mismatched_keys"]})
    if not own:
        _check_whole(folder, model, told["missing_keys"])
    adapter = adapter_of(folder)
    if adapter is not None:
        merge(model, adapter)
    return model


def _check_whole(folder: Path, model: Any, missing: Collection[str]) -> None:
    """``UserError`` where weights are missing that no training puts there: they would be random. A head may be new, and
    the pooler before it; that of a model which writes is none of a task."""
    body = f"{model.base_model_prefix}."
    alone, writes = model.base_model is model, model.can_generate()

    def may_be_new(name: str) -> bool:
        in_body = alone or writes or name.startswith(body)
        return not in_body or (not writes and name.split(".")[0] in _HEADS) or "pooler" in name.split(".")

    lost = [name for name in sorted(missing) if not may_be_new(name) and not _is_computed(model, name)]
    if lost:
        more = f" and {len(lost) - 1} others" if len(lost) > 1 else ""
        raise UserError(
            f"{folder}: its weights lack {lost[0]}{more}, which its config.json says there are; copy the folder again,"
            " or correct its number of layers"
        )


def _is_computed(model: Any, name: str) -> bool:
    """Whether it is a table of positions that no training fills."""
    module = name.rpartition(".")[0]
    computed = any(getattr(model.config, each, False) for each in ("sinusoidal_pos_embds", "sinusoidal_embeddings"))
    return "Sinusoidal" in type(model.get_submodule(module)).__name__ or (computed and "position" in module)


def new_parameters(model: Any) -> frozenset[str]:
    """Names of those that the folder ``model`` was loaded from did not have: they are random."""
    found: frozenset[str] = getattr(model, _NEW, frozenset())
    return found


def save(model: Any, base: Path, out: Path) -> None:
    """Write a model and ``base``'s tokenizer to the folder ``out``, whole or not at all."""
    from safetensors import SafetensorError  # which is how a full disk is told

    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with _quiet():
            model.save_pretrained(partial, max_shard_size="1TB")
        for name in _TOKENIZER_FILES:
            if (base / name).is_file():
                shutil.copyfile(base / name, partial / name)
        out.mkdir(parents=True, exist_ok=True)
        # The config is moved last: a folder without one is no model.
        for path in sorted(partial.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
            path.chmod(0o644)
            path.replace(out / path.name)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out}: cannot write the model ({error}); free some space or choose another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no load reports of others on our terminal."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _why(error: Exception) -> str:
    """In a line. Of shapes that differ transformers says in its error only how to pass over them."""
    if "ignore_mismatched_sizes" in str(error):
        return "its weights are of other shapes than its config.json says; copy both files again, from one model"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
