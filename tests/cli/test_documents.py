"""Blueprints as files: what YAML or JSON says in a way that would be lost on the way is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_cli.documents import read_blueprint
from holdfast_cli.exits import CommandError


def read(text: str, folder: Path) -> dict[str, object]:
    file = folder / "shop.yaml"
    file.write_text(text)
    return read_blueprint(str(file))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("nodes: []\nnodes: []\n", "line 2, column 1"),
        ("nodes: []\nspec: {x: .nan}\n", "line 2, column 11"),
        ("nodes: []\non: 1\n", "line 2, column 1"),
        ('{"nodes": [], "nodes": []}', "/nodes"),
        ('{"spec": {"x": [1e999]}}', "/spec/x/0"),
        ('{"spec": ' + "[" * 5_000 + "]" * 5_000 + "}", ""),
        ("spec: " + "[" * 5_000 + "]" * 5_000, "line 1, column 134"),
    ],
)
def test_what_would_be_lost_or_cannot_be_read_is_refused(text: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        read(text, tmp_path)
    where = [problem.path for problem in caught.value.body.paths]
    assert where == [place]


def test_yaml_with_anchors_and_flow_mappings_is_read_as_ever(tmp_path: Path) -> None:
    text = "base: &base {a: 1}\nspec: {x: *base, y: {<<: *base, b: 2}}\n"
    assert read(text, tmp_path) == {"base": {"a": 1}, "spec": {"x": {"a": 1}, "y": {"a": 1, "b": 2}}}
    assert read("{nodes: [], name: x}", tmp_path) == {"nodes": [], "name": "x"}
