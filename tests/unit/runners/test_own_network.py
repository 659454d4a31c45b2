"""Whether another process's ports can be asked by 127.0.0.1."""

from __future__ import annotations

import platform
from pathlib import Path

from runners.own_network import own_network


def test_it_differs_by_kernel_and_by_namespace_and_is_else_the_same(tmp_path: Path) -> None:
    boots = [tmp_path / name for name in ("boot", "another boot")]
    namespaces = [tmp_path / name for name in ("namespace", "another namespace")]
    for path in (*boots, *namespaces):
        path.write_text(f"{path.name}\n")
    names = [own_network(boot, namespace) for boot in boots for namespace in namespaces]
    assert names == [own_network(boot, namespace) for boot in boots for namespace in namespaces]
    assert len(set(names)) == 4


def test_a_system_that_tells_neither_has_one_network(tmp_path: Path) -> None:
    assert own_network(tmp_path / "boot", tmp_path / "namespace") == f"{platform.node()} 0"
