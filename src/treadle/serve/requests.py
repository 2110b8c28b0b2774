"""Bodies that clients send, as types; `msgspec` reads them and the OpenAPI description is made from them.

Every field of OpenAI's that this server cannot honor stands here too, so that it can be refused by name; unless it
has the value that asks for nothing (``functions: []``), it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Temperature = Annotated[float, Meta(ge=0, le=2, description="0, the likeliest, where it is left out")]
TopP = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=8)]
MaxTokens = Annotated[int, Meta(ge=1, le=1_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
Stop = StopText | Annotated[list[StopText], Meta(max_length=4)]
User = Annotated[str, Meta(max_length=512)]
Name = Annotated[str, Meta(max_length=256)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
Alternatives = Annotated[int, Meta(ge=0, le=20)]
FunctionName = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(min_length=1)]
Texts = Text | Annotated[list[Text], Meta(min_length=1, max_length=256)]


class Body(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every request may carry. ``store: false`` keeps no text of it and never trains on it."""

    model: Name | None = None
    user: User | None = None
    metadata: Metadata | None = None
    store: bool | None = None


class ContentPart(Struct, forbid_unknown_fields=True, kw_only=True):
    """A part of a message; only text is understood."""

    type: str
    text: str | None = None
    refusal: Any = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None


class ChatMessage(Struct, forbid_unknown_fields=True, kw_only=True):
    """One turn. An assistant's may call tools, and a ``tool`` answers a call; what else it carries must be empty."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: Any = None
    refusal: Any = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None
    parsed: Any = None  # what OpenAI's client read out of the content, and sends back


class Function(Struct, forbid_unknown_fields=True, kw_only=True):
    """A function the model may call; ``parameters``, a JSON Schema, holds where ``strict`` says so or
    ``tool_choice`` asks for a call."""

    name: FunctionName
    description: Annotated[str, Meta(max_length=10_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, forbid_unknown_fields=True, kw_only=True):
    """Of OpenAI's kinds of tools, functions."""

    type: Literal["function"]
    function: Function


class NamedFunction(Struct, forbid_unknown_fields=True, kw_only=True):
    """One of ``tools``."""

    name: FunctionName


class ToolChoice(Struct, forbid_unknown_fields=True, kw_only=True):
    """The answer is a call of this function alone, where the engine can; with ``required``, of one of ``tools``."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Struct, forbid_unknown_fields=True, kw_only=True):
    """The answer is JSON that keeps to ``schema``, whatever ``strict`` says, unless it is cut at its length."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    schema: dict[str, Any] | None = None
    description: Annotated[str, Meta(max_length=10_000)] | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True, kw_only=True):
    """``json_object`` and ``json_schema`` where the engine can."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Context(Struct, forbid_unknown_fields=True, kw_only=True):
    """A document sent with the question; it is recorded as given, by the id."""

    text: Text
    id: Annotated[str, Meta(max_length=200)] | None = None
    title: Annotated[str, Meta(max_length=500)] | None = None


class StreamOptions(Struct, forbid_unknown_fields=True, kw_only=True):
    """``include_usage`` adds a last chunk with the counts."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Sampling(Body, kw_only=True):
    """What chat and text completions share."""

    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Count | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None


class ChatRequest(Sampling, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    context: Annotated[list[Context], Meta(max_length=64)] | None = None
    safety_identifier: User | None = None
    prompt_cache_key: str | None = None  # a hint: the engine finds common prefixes by itself
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None
    top_logprobs: Alternatives | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    response_format: ResponseFormat | None = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    service_tier: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    moderation: Any = None


class CompletionRequest(Sampling, kw_only=True):
    """``POST /v1/completions``: the prompt is continued as it stands, without a chat template."""

    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=1)]
    logprobs: Alternatives | None = None
    best_of: Any = None
    echo: Any = None
    suffix: Any = None


class ClassifyRequest(Body, kw_only=True):
    """``POST /v1/classify``."""

    input: Texts


class TagRequest(Body, kw_only=True):
    """``POST /v1/tag``."""

    input: Texts


class EmbeddingsRequest(Body, kw_only=True):
    """``POST /v1/embeddings``."""

    input: Texts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None


class ScoreRequest(Body, kw_only=True):
    """``POST /v1/score``: pairs of texts, the n-th of each list, or one ``text_1`` with every ``text_2``.

    Of an embedder, the cosine of their vectors. Of a generator, the log-likelihood of ``text_2`` as its answer to the
    user's message ``text_1``, or of what continues it as it stands (``raw``).
    """

    text_1: Texts
    text_2: Texts
    raw: bool | None = None


class RerankRequest(Body, kw_only=True):
    """``POST /v1/rerank``: documents by their score beside the query, best first; ``top_n`` of them."""

    query: Text
    documents: Annotated[list[Text], Meta(min_length=1, max_length=256)]
    top_n: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    return_documents: bool | None = None


class FeedbackRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """``POST /v1/feedback``: what somebody says of one interaction; one of the four per request."""

    interaction: Annotated[str, Meta(max_length=64)]
    thumbs: Literal["up", "down"] | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    correction: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    preference: Annotated[int, Meta(ge=0, le=7)] | None = None
    comment: Annotated[str, Meta(max_length=10_000)] | None = None
    user: User | None = None


# The values of a field we cannot honor that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "audio": (),
    "prediction": (),
    "prompt_cache_retention": (),
    "prompt_cache_options": (),
    "reasoning_effort": ("none",),
    "web_search_options": (),
    "moderation": (),
    # of a message
    "name": (),
    "refusal": (),
    "annotations": ([],),
    # of a part of a message
    "image_url": (),
    "input_audio": (),
    "file": (),
}


def asked_in_vain(body: Struct) -> str | None:
    """The first field that is set to something this server cannot do."""
    for name in _UNSUPPORTED[type(body)]:
        value = getattr(body, name)
        if value is None:
            continue
        # `True == 1`, and a boolean is not the number that asks for nothing.
        boolean = isinstance(value, bool)
        if not any(value == n and isinstance(n, bool) is boolean for n in NEUTRAL[name]):
            return name
    return None


def unsupported_fields(kind: type[Struct]) -> tuple[str, ...]:
    """Fields that are taken with the values of ``NEUTRAL`` alone."""
    return _UNSUPPORTED.get(kind, ())


_UNSUPPORTED: dict[type[Struct], tuple[str, ...]] = {
    kind: tuple(name for name in kind.__struct_fields__ if name in NEUTRAL)
    for kind in (
        ChatRequest,
        CompletionRequest,
        ClassifyRequest,
        TagRequest,
        EmbeddingsRequest,
        ScoreRequest,
        RerankRequest,
        ChatMessage,
        ContentPart,
    )
}
