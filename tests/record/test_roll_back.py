"""There is a way back to a champion, whatever was tried beside it in vain; not to one that was itself taken back."""

from __future__ import annotations

import pytest

from treadle.core.errors import UserError
from treadle.core.identifiers import new_id
from treadle.record.record import Record
from treadle.stages.govern.promotion import roll_back


def release(record: Record, number: int) -> str:
    folder = record.store.new_folder()
    (folder / "release.json").write_text(str(number))
    return record.store.put(folder)


def test_a_champion_of_which_another_release_was_tried_in_vain(record: Record) -> None:
    versions = [record.versions.register("model", "b3:" + letter * 64, None) for letter in "123"]
    releases = [release(record, number) for number in range(4)]
    record.versions.point("champion", versions[0], reason="gates held", release=releases[0])
    canary = new_id("can")
    record.canaries.begin(canary, releases[3], versions[0].digest, releases[0], 0.1)
    assert roll_back(record, None).what == "canary"
    record.versions.point("champion", versions[1], reason="gates held", release=releases[1])
    back = roll_back(record, None)
    assert (back.version, back.now) == (versions[1].ref, versions[0].ref)
    assert record.versions.served() == releases[0]
    record.versions.point("champion", versions[2], reason="gates held", release=releases[2])
    assert roll_back(record, None).now == versions[0].ref  # past the second, which was taken back as champion
    with pytest.raises(UserError, match="no release before"):
        roll_back(record, None)
