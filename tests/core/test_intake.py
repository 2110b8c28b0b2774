"""Copies that are read, hashed, encrypted and written by several threads: byte for byte what was read."""

from __future__ import annotations

import io
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from treadle.core.cipher import SEGMENT, Cipher, encrypted_size
from treadle.core.digest import blake3_bytes
from treadle.core.intake import copied

CIPHER = Cipher([bytes(range(32))])
SIZES = (0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 4 * SEGMENT, 4 * SEGMENT + 1, 9 << 20, (20 << 20) + 4321)


@pytest.mark.parametrize("cipher", [None, CIPHER], ids=["plain", "encrypted"])
@pytest.mark.parametrize("size", SIZES)
def test_a_copy_is_what_was_read(tmp_path: Path, size: int, cipher: Cipher | None) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    data = random.Random(size).randbytes(size)
    source.write_bytes(data)
    assert copied(str(source), str(target), cipher) == (blake3_bytes(data), size)
    if cipher is None:
        assert target.read_bytes() == data
    else:
        assert target.stat().st_size == encrypted_size(size)
        with target.open("rb") as sealed:
            plain = io.BytesIO()
            assert cipher.decrypt_file(sealed, plain) == size
        assert plain.getvalue() == data
    assert not os.access(target, os.W_OK) or os.geteuid() == 0


@pytest.mark.parametrize("cipher", [None, CIPHER], ids=["plain", "encrypted"])
def test_what_cannot_be_written_is_an_error(tmp_path: Path, cipher: Cipher | None) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(12 << 20))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            copied(str(source), str(tmp_path / "target"), cipher)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
