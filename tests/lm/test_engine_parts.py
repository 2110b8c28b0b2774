"""The parts of an engine that need no model."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core import plugins
from treadle.core.errors import TreadleError, UserError
from treadle.lm.engine_settings import WorkerSettings, convert_settings
from treadle.lm.engine_wire import FrameBuffer, Generate, Report, Tokens, decode_reply, decode_request, encode
from treadle.lm.engine_worker import Worker
from treadle.lm.engines import GROUP, find_engine, serves_gguf
from treadle.lm.model_folder import model_folder, read_config
from treadle.lm.stop_strings import StopStrings

few = st.text(alphabet="ab\n", max_size=24)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


def ended(text: str, stops: list[str]) -> str | None:
    """Read character by character; ``None`` when no stop string comes."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return None


@given(few, st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 99)))
def test_text_ends_at_the_first_stop_string_however_it_arrives(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopStrings(stops)
    got = "".join(matcher.push(piece) for piece in pieces(text, cuts)) + matcher.finish()
    expected = ended(text, stops)
    assert matcher.hit == (expected is not None)
    assert got == (text if expected is None else expected)


def test_nothing_that_may_begin_a_stop_string_is_given_away() -> None:
    matcher = StopStrings(["</answer>", "\n\n"])
    assert [matcher.push(p) for p in ("yes", "</ans", "wer", "?", "\n", "x")] == ["yes", "", "", "</answer?", "", "\nx"]
    assert not matcher.hit


@given(st.lists(st.integers(0, 200), max_size=5), st.integers(1, 64))
def test_frames_come_whole_however_they_are_cut(sizes: list[int], step: int) -> None:
    messages = [Report([Tokens(i, list(range(size)), [-0.5], "stop")], i, size) for i, size in enumerate(sizes)]
    data = b"".join(map(encode, messages))
    buffer = FrameBuffer()
    frames = [frame for at in range(0, len(data), step) for frame in buffer.feed(data[at : at + step])]
    assert [decode_reply(frame) for frame in frames] == messages


def test_a_request_survives_the_wire() -> None:
    message = Generate(7, [1, 2, 1 << 40], 5, 0.5, 0.9, (1 << 63) - 1, True, [2])
    (frame,) = FrameBuffer().feed(encode(message))
    assert decode_request(frame) == message


def test_a_frame_that_claims_too_much_is_refused_before_it_is_stored() -> None:
    with pytest.raises(TreadleError, match="4294967295 bytes"):
        list(FrameBuffer().feed(b"\xff\xff\xff\xff"))


def test_worker_ends_when_its_parent_is_gone_before_it_asked() -> None:
    import socket

    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        Worker(theirs).run()


def test_settings_name_what_was_meant() -> None:
    with pytest.raises(UserError, match=r"'wait_polic'; did you mean 'wait_policy'\?"):
        convert_settings("some", WorkerSettings, {"wait_polic": "passive"})
    with pytest.raises(UserError, match="hang_seconds"):
        convert_settings("some", WorkerSettings, {"hang_seconds": "long"})
    assert convert_settings("some", WorkerSettings, {"hang_seconds": 3}).hang_seconds == 3


def test_an_unknown_engine_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean 'openvino'\?"):
        find_engine("openvno", tmp_path)


def test_auto_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no installed engine can run what is in it .*model\.gguf or safetensors"):
        find_engine("auto", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        find_engine("auto", tmp_path / "missing")


def test_auto_prefers_the_serving_engine_and_takes_what_opens(tiny_llama: Path, tiny_release: Path) -> None:
    assert find_engine("auto", tiny_release).__name__ == "OpenVinoEngine"
    assert find_engine("auto", tiny_llama).__name__ == "TransformersEngine"


def test_an_engine_that_cannot_be_loaded_is_not_the_one_that_auto_takes(
    tiny_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = EntryPoint("broken", "no_such_module:Engine", GROUP)
    entries = plugins.entries
    monkeypatch.setattr(plugins, "entries", lambda group: [broken, *entries(group)])
    assert serves_gguf("auto")
    assert find_engine("auto", tiny_release).__name__ == "OpenVinoEngine"
    with pytest.raises(UserError, match=r"broken .* cannot be loaded"):
        serves_gguf("broken")
    monkeypatch.setattr(plugins, "entries", lambda group: [broken])
    assert not serves_gguf("auto")


def test_the_model_lies_in_the_folder_or_in_its_model_folder(tiny_release: Path) -> None:
    assert model_folder(tiny_release) == model_folder(tiny_release / "model") == tiny_release / "model"


def test_a_config_is_an_object_of_bounded_size(tmp_path: Path) -> None:
    for text, said in (("[]", "expected a JSON object"), ("{", "not JSON"), ("[" * 100_000, "not JSON")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=said):
            read_config(tmp_path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(UserError, match="expected at most"):
        read_config(tmp_path)


def test_the_block_sizes_are_those_of_the_gguf_package() -> None:
    import gguf

    from treadle.lm.gguf_file import _BLOCKS

    known = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: known[kind] for kind in _BLOCKS} == _BLOCKS
