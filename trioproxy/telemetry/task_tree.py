"""Who runs: trio's tasks as a tree, with tasks of the same name under the same parent counted together."""

from typing import Any

import trio

Tree = dict[str, Any]
"""A task's name, how many of it there are, and the trees below it (absent if there are none)."""


def task_tree() -> Tree:
    """The process's tasks, from the root down. Its size depends on how the program is built, not on its load."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return _tree([root])


def _tree(alike: list[trio.lowlevel.Task]) -> Tree:
    by_name: dict[str, list[trio.lowlevel.Task]] = {}
    for task in alike:
        for nursery in task.child_nurseries:
            for child in nursery.child_tasks:
                by_name.setdefault(_short(child.name), []).append(child)
    tree: Tree = {"name": _short(alike[0].name), "count": len(alike)}
    if by_name:
        tree["tasks"] = [_tree(children) for _, children in sorted(by_name.items())]
    return tree


def _short(name: str) -> str:
    """A task's name without its arguments, which would tell thousands apart."""
    return name.partition("(")[0].removeprefix("functools.partial")
