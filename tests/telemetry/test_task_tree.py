"""Who runs, as a tree that stays small."""

from functools import partial

import trio
import trio.testing

from trioproxy.telemetry.task_tree import Tree, task_tree


async def parent(children: int) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(children):
            nursery.start_soon(partial(child, number), name=f"child({number})")


async def child(number: int) -> None:
    await trio.sleep_forever()


def find(tree: Tree, name: str) -> list[Tree]:
    """Every part of the tree whose root is called so, whatever its module."""
    below = [found for inner in tree.get("tasks", []) for found in find(inner, name)]
    return [tree, *below] if tree["name"].rpartition(".")[2] == name else below


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree.get("tasks", [])))


async def test_tasks_of_one_name_under_parents_of_one_name_are_counted_together() -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(parent, 3)
        await trio.testing.wait_all_tasks_blocked()
        tree = task_tree()
        assert tree["count"] == 1
        (parents,) = find(tree, "parent")
        assert parents["count"] == 2
        assert parents["tasks"] == [{"name": "child", "count": 6}]

        for _ in range(50):
            nursery.start_soon(parent, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert size(task_tree()) == size(tree)
        nursery.cancel_scope.cancel()
