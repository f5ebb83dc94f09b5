"""CPython's own tests of mappings and of dict, run on Cache where they apply to a bounded one."""

from __future__ import annotations

import ast
import inspect
import re
import unittest
from collections.abc import Hashable
from types import ModuleType
from typing import Any

import test.mapping_tests
import test.test_dict

from cachecore import Cache


class BoundedDict(Cache[Hashable, Any]):
    """A Cache that is made as a dict is, with room for all that these tests put in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(200_000)
        self.update(*args, **kwargs)


class TestBasicProtocol(test.mapping_tests.BasicTestMappingProtocol):
    type2test = BoundedDict


class TestGeneralProtocol(test.mapping_tests.TestMappingProtocol):
    type2test = BoundedDict


class TestHashProtocol(test.mapping_tests.TestHashMappingProtocol):
    type2test = BoundedDict


# Tests of test_dict that are about dict itself, and why they say nothing about a cache.
NOT_ABOUT_CACHES = {
    "test_dict_copy_order": "a cache promises no order",
    "test_dict_items_result_gc_reversed": "a cache has no order to reverse",
    "test_reverse_iterator_for_empty_dict": "a cache has no order to reverse",
    "test_reversed": "a cache has no order to reverse",
    "test_reverseiterator_pickling": "a cache has no order to reverse",
    "test_reverseitemiterator_pickling": "a cache has no order to reverse",
    "test_reversevaluesiterator_pickling": "a cache has no order to reverse",
    "test_iterator_pickling": "iterators of a cache are not pickled",
    "test_itemiterator_pickling": "iterators of a cache are not pickled",
    "test_valuesiterator_pickling": "iterators of a cache are not pickled",
    "test_merge_operator": "| and |= are not in the interface of a cache",
    "test_store_evilattr": "an instance keeps its attributes in a dict",
    "test_str_nonstr": "uses |=; see test_surface.py for keys of several types that are equal",
    "test_track_dynamic": "when the collector may skip a dict",
    "test_track_literals": "when the collector may skip a dict",
    "test_views_mapping": "the `mapping` attribute of dict views",
}


class _DictToCache(ast.NodeTransformer):
    """Turns dict displays, dict comprehensions and the name `dict` into BoundedDict."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id == "dict":
            return ast.copy_location(ast.Name("BoundedDict", node.ctx), node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and node.value.startswith("dict_"):
            text = re.sub("dict_(keys|values|items)", lambda m: f"Cache{m[1].title()}", node.value)
            return ast.copy_location(ast.Constant(text), node)
        return node

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        # As pairs: tests that count hashes and comparisons would see those of a dict in between.
        keys = [key for key in node.keys if key is not None]
        if len(keys) < len(node.keys):
            return self.visit_DictComp(node)
        pairs: list[ast.expr] = [
            ast.Tuple([key, value], ast.Load())
            for key, value in zip(keys, node.values, strict=True)
        ]
        return self.visit_DictComp(node, ast.List(pairs, ast.Load()))

    def visit_DictComp(self, node: ast.expr, contents: ast.expr | None = None) -> ast.AST:
        contents = contents or node
        self.generic_visit(contents)
        call = ast.Call(ast.Name("BoundedDict", ast.Load()), [contents], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))


def _dict_tests() -> type[unittest.TestCase]:
    module = ModuleType("test_dict_on_cache")
    module.__dict__["BoundedDict"] = BoundedDict
    tree = _DictToCache().visit(ast.parse(inspect.getsource(test.test_dict)))
    exec(compile(tree, str(test.test_dict.__file__), "exec"), module.__dict__)
    tests: type[unittest.TestCase] = module.__dict__["DictTest"]
    for name in NOT_ABOUT_CACHES:
        if hasattr(tests, name):  # the set of tests grows from one Python to the next
            setattr(tests, name, None)
    return tests


TestDict = _dict_tests()


def test_most_of_dicts_tests_are_run() -> None:
    names = [name for name in dir(test.test_dict.DictTest) if name.startswith("test_")]
    assert len(NOT_ABOUT_CACHES) < len(names) / 4
