"""The directory in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast_model.errors import Invalid
from holdfast_work_items.directory import EmptyDirectory, FileDirectory
from holdfast_work_items.ids import new_id, well_formed

from .building import NOW, after

TEXT = "groups: {operators: [root], stewards: [ann]}\ntenants: {acme: {groups: {stewards: [bob]}}}\n"


async def test_groups_of_all_tenants_and_of_one_add_up(tmp_path: Path) -> None:
    file = tmp_path / "directory.yaml"
    file.write_text(TEXT)
    directory = FileDirectory(str(file), lambda: 0.0)

    assert await directory.groups_of("acme", "bob") == {"stewards"}
    assert await directory.groups_of("other", "bob") == frozenset()
    assert await directory.groups_of("other", "root") == {"operators"}
    assert await EmptyDirectory().groups_of("acme", "root") == frozenset()


async def test_a_change_of_the_file_is_noticed_and_a_broken_one_ignored(tmp_path: Path) -> None:
    file = tmp_path / "directory.json"
    file.write_text('{"groups": {"a": ["ann"]}}')
    now = 0.0
    directory = FileDirectory(str(file), lambda: now)
    await directory.load()

    for text, expected in (('{"groups": {"b": ["ann"]}}', {"b"}), ("{", {"b"}), ('{"group": {}}', {"b"})):
        file.write_text(text)
        now += 10
        os.utime(file, (now, now))
        assert await directory.groups_of("acme", "ann") == expected


@pytest.mark.parametrize("text", [None, "{", "groups: 3", "people: {}"])
async def test_a_file_that_cannot_be_read_at_first_is_an_error(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "directory.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Invalid, match=r"directory\.yaml"):
        await FileDirectory(str(file), lambda: 0.0).load()


def test_ids_sort_by_time_and_never_look_like_a_key() -> None:
    ids = [new_id(after(seconds=n)) for n in range(50)]
    assert ids == sorted(ids)
    assert len({new_id(NOW) for _ in range(200)}) == 200
    assert all(len(id) == 20 and well_formed(id) for id in ids)
    for word in ("due", "status:PENDING", "active:x", "a b c d e f g h", "", "é" * 20):
        assert not well_formed(word)
