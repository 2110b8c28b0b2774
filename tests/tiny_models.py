"""Small models with random weights, made by transformers itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SMOLLM_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY = 320
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "intermediate_size": 96, "rope_theta": 100000.0, "tie_word_embeddings": True},
    "qwen2": {"num_key_value_heads": 2, "intermediate_size": 96, "tie_word_embeddings": False},
    "gemma2": {"num_key_value_heads": 2, "intermediate_size": 96, "head_dim": 16, "final_logit_softcapping": 2.0},
    "gpt2": {"n_inner": 96, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "mistral": {"num_key_value_heads": 2, "intermediate_size": 96, "sliding_window": 8},
    "lfm2": {"num_key_value_heads": 2, "intermediate_size": 96, "layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 8},
}


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE with three control tokens and SmolLM2's way of splitting, trained on a few words."""
    import json

    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the function returns the value of the object", "system user assistant"] * 4, trainer
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": SMOLLM_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_model(folder: Path, family: str = "llama", seed: int = 0, **more: Any) -> Path:
    """A two-layer model of a family; every dimension is a multiple of 32, so that Q8_0 applies. ``more``: of its
    configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **SHAPES[family] | more,
    )
    write_tokenizer(folder)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_wide_model(folder: Path) -> Path:
    """A random Llama whose heads are as wide as vLLM's attention on a CPU wants them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    write_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_release(model: Path, release: Path) -> Path:
    """What an engine opens: the model as Q8_0 GGUF with its tokenizer, in the release's ``model`` folder."""
    import shutil

    from treadle.lm.gguf import write_gguf

    folder = release / "model"
    folder.mkdir(parents=True)
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    write_gguf(model, folder / "model.gguf")
    return release


def write_encoder(folder: Path, texts: Sequence[str], seed: int = 0) -> Path:
    """A two-layer BERT with random weights and the words and letters of ``texts`` as pieces."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = pre_tokenizers.BertPreTokenizer()
    # Not learned: a trainer breaks ties in another way each time.
    counts = Counter(word for text in texts for word, _ in words.pre_tokenize_str(text))
    letters = sorted({letter for word in counts for letter in word})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    whole = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    vocabulary = {piece: place for place, piece in enumerate([*pieces, *whole][:VOCABULARY])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = words
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}'
    )
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def write_encoder_decoder(folder: Path, family: str = "t5", seed: int = 0) -> Path:
    """A small T5, BART or Marian with random weights; what ends a text is ``<|im_end|>``, which every source has."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    torch.manual_seed(seed)
    size: dict[str, Any] = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
    size |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "init_std": 0.1}
    size |= {
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "dropout": 0.0,
        "decoder_start_token_id": 0,
        "bos_token_id": 1,
    }
    if family == "t5":
        size = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
        size |= {"n_positions": 128, "decoder_start_token_id": 0, "initializer_factor": 2.0}
    config = AutoConfig.for_model(family, vocab_size=VOCABULARY, eos_token_id=2, pad_token_id=0, **size)
    config.forced_eos_token_id = None
    write_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(
        single="$A <|im_end|>", pair="$A <|im_end|> $B <|im_end|>", special_tokens=[("<|im_end|>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return folder
