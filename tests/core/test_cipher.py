"""What is encrypted comes back, in parts too; what was changed, cut off or moved does not."""

from __future__ import annotations

import io
import os
import pickle
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.core.cipher import HEADER, SEGMENT, TAG, Cipher, encrypted_size, open_cipher, plain_size
from treadle.core.errors import Corrupt, UserError

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
CIPHER = Cipher([KEY])
SIZES = [0, 1, 5000, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 2 * SEGMENT + 7]


@pytest.mark.parametrize("size", SIZES)
def test_bytes_and_files_come_back(size: int) -> None:
    data = os.urandom(size)
    sealed, seen, target = CIPHER.encrypt(data), io.BytesIO(), io.BytesIO()
    assert CIPHER.encrypt_file(io.BytesIO(data), target, seen.write) == size
    assert seen.getvalue() == data
    for each in (sealed, target.getvalue()):
        assert len(each) == encrypted_size(size)
        assert plain_size(len(each)) == size
        assert CIPHER.decrypt(each) == data
        back = io.BytesIO()
        assert CIPHER.decrypt_file(io.BytesIO(each), back) == size
        assert back.getvalue() == data
        assert CIPHER.open(io.BytesIO(each)).read() == data
    assert sealed != target.getvalue()  # another salt
    assert size < 16 or data[:16] not in sealed


@settings(max_examples=60)
@given(start=st.integers(0, 3 * SEGMENT + 9), length=st.integers(0, 2 * SEGMENT))
def test_any_range_can_be_read(start: int, length: int) -> None:
    with CIPHER.open(io.BytesIO(_SEALED)) as file:
        file.seek(start)
        assert file.read(length) == _DATA[start : start + length]


_DATA = os.urandom(3 * SEGMENT + 5)
_SEALED = CIPHER.encrypt(_DATA)


def test_a_range_reads_only_its_segments() -> None:
    changed = bytearray(_SEALED)
    changed[HEADER + 1] ^= 1  # in the first segment
    with CIPHER.open(io.BytesIO(bytes(changed))) as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == _DATA[-3:]
        file.seek(0)
        with pytest.raises(Corrupt):
            file.read(1)


@settings(max_examples=60)
@given(at=st.integers(0, len(_SEALED) - 1), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(at: int, bit: int) -> None:
    changed = bytearray(_SEALED)
    changed[at] ^= 1 << bit
    with pytest.raises((Corrupt, UserError)):
        CIPHER.decrypt(bytes(changed))


@settings(max_examples=60)
@given(length=st.integers(0, len(_SEALED) - 1))
def test_a_shorter_file_is_noticed(length: int) -> None:
    with pytest.raises(Corrupt):
        CIPHER.decrypt(_SEALED[:length])


def test_what_is_cut_off_reordered_or_mixed_is_noticed() -> None:
    step = SEGMENT + TAG
    header, segments = _SEALED[:HEADER], [_SEALED[HEADER + n * step : HEADER + (n + 1) * step] for n in range(4)]
    others = CIPHER.encrypt(_DATA)
    for bad in (
        header,
        header + segments[0],
        header + b"".join(segments[:3]),
        header + segments[1] + segments[0] + b"".join(segments[2:]),
        header + others[HEADER:],
        _SEALED + bytes(TAG),
        _SEALED + _SEALED[HEADER:],
    ):
        with pytest.raises(Corrupt):
            CIPHER.decrypt(bad, "it")
        with pytest.raises(Corrupt):
            CIPHER.decrypt_file(io.BytesIO(bad), io.BytesIO(), "it")
    with pytest.raises(Corrupt), CIPHER.open(io.BytesIO(CIPHER.encrypt(b"")[:-1] + b"x")) as empty:
        empty.read()


def test_keys_change_and_the_wrong_one_is_named() -> None:
    old, new, both = Cipher([KEY]), Cipher([OTHER]), Cipher([OTHER, KEY])
    sealed = old.encrypt(b"text")
    assert both.decrypt(sealed) == b"text"
    assert old.is_current(sealed) and not both.is_current(sealed)
    assert both.is_current(both.encrypt(b"text"))
    assert new.decrypt(both.encrypt(b"text")) == b"text"
    with pytest.raises(UserError, match=f"the page is encrypted under the key {old.key_id.hex()}, which is none of"):
        new.decrypt(sealed, "the page")


@pytest.mark.parametrize("form", [bytes.hex, lambda key: b64encode(key).decode(), urlsafe_b64encode])
def test_keys_come_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: object
) -> None:
    written = form(OTHER)  # type: ignore[operator]
    written = written.decode() if isinstance(written, bytes) else written
    monkeypatch.setenv("STORE_KEYS", f"{written} {KEY.hex()}")
    (tmp_path / "keys").write_text(f"# since May\n{written}\n{KEY.hex()}\n")
    (tmp_path / "keys").chmod(0o600)
    for setting in ("${env:STORE_KEYS}", "keys", str(tmp_path / "keys")):
        cipher = open_cipher(setting, tmp_path)
        assert cipher.key_id == Cipher([OTHER]).key_id
        assert cipher.decrypt(Cipher([KEY]).encrypt(b"text")) == b"text"
        sent = pickle.dumps(cipher)
        assert OTHER not in sent and written.encode() not in sent
        assert pickle.loads(sent).decrypt(cipher.encrypt(b"text")) == b"text"
    with pytest.raises(TypeError):
        pickle.dumps(Cipher([KEY]))


def test_what_is_no_key_is_refused_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    with pytest.raises(UserError, match=r"no file of keys .*openssl rand -hex 32 > "):
        open_cipher("keys", tmp_path)
    monkeypatch.delenv("STORE_KEYS", raising=False)
    with pytest.raises(UserError, match="STORE_KEYS of the environment is not set"):
        open_cipher("${env:STORE_KEYS}", tmp_path)
    with pytest.raises(UserError, match="holds a key itself") as refused:
        open_cipher(KEY.hex(), tmp_path)
    assert KEY.hex() not in str(refused.value)
    for text in ("", "# only this\n", "hunter22", KEY.hex()[:-1], KEY.hex() + "\nhunter22"):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(UserError, match="make one with: openssl rand -hex 32") as bad:
            open_cipher("keys", tmp_path)
        assert "hunter22" not in str(bad.value)
    path.write_text(KEY.hex())
    path.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        open_cipher("keys", tmp_path)
