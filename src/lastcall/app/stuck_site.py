"""Where a suspended frame stands: the expression it waits in, and the `with` blocks around it.

All of it is read from code objects and source, nothing of the program's own code is run: names and
plain attributes are looked up, a property or `__getattr__` is never called. What cannot be known
is left out. Source positions and exception tables are used because they survived every change of
the bytecode since 3.11.

Source: PEP 657 (positions), CPython's InternalDocs/exception_handling.md (the exception table).
"""

# ruff: noqa: ANN401 (what is looked at are objects of the program, of any type)

from __future__ import annotations

import functools
import itertools
import os
import stat
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
    from types import CodeType, FrameType
    from typing import Any

MISSING: Any = object()
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST, without the 8 ms of importing ast
_SOURCE_LIMIT_BYTES = 4 << 20
_EXPRESSION_LIMIT_BYTES = 2000
_TEXT_LIMIT = 60
_WORD = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")

Position = tuple[int, int, int, int]


def prepare() -> None:
    """Import what is needed later, while no stuck thread can be holding an import lock."""
    _with_except_start()


class Expression:
    """An expression of the source, parsed, which can be shown and looked up in its frame."""

    __slots__ = ("frame", "node", "shift", "source")

    def __init__(self, frame: FrameType, node: ast.expr, source: bytes, shift: int = 0) -> None:
        self.frame: FrameType = frame
        self.node: ast.expr = node
        self.source: bytes = source
        self.shift: int = shift

    def of(self, node: ast.expr) -> Expression:
        """A part of it."""
        return Expression(self.frame, node, self.source, self.shift)

    @property
    def text(self) -> str:
        """Its source on one line, at most 60 characters."""
        node = self.node
        if node.end_lineno is None or node.end_col_offset is None:
            return ""
        begin, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
        piece = _cut(self.source.split(b"\n"), (begin[0], end[0], begin[1], end[1]))
        words = " ".join(piece.decode("utf-8", "replace").split())
        return words if len(words) <= _TEXT_LIMIT else words[: _TEXT_LIMIT - 3] + "..."

    @property
    def value(self) -> Any:
        """What it stands for; `MISSING` when that cannot be told without running it."""
        return _evaluate(self.node, self.frame)


class Held:
    """Something a frame holds: what, since which line, and whether that is certain."""

    __slots__ = ("frame", "line", "sure", "thing")

    def __init__(self, frame: FrameType, thing: object, line: int, *, sure: bool) -> None:
        self.frame: FrameType = frame
        self.thing: object = thing
        self.line: int = line
        self.sure: bool = sure

    @property
    def where(self) -> str:
        """`cache.py:31 in flush`."""
        code = self.frame.f_code
        return f"{os.path.basename(code.co_filename)}:{self.line} in {code.co_name}"


def standing_at(frame: FrameType) -> Expression | None:
    """The call or the item of a `with` that the frame stands in; None when it cannot be told."""
    position = _position(frame.f_code, frame.f_lasti)
    if position is None:
        return None
    entered = sum(at == position for at in _with_positions(frame))
    return _item(frame, position, entered)


def held_by(frame: FrameType) -> Iterator[Held]:
    """What a frame holds by `with` (certain), or by an acquire without a release so far."""
    positions = list(_with_positions(frame))
    for index, position in enumerate(positions):
        # `with a, b` is one position up to 3.12: the inner one is the later item.
        item = _item(frame, position, positions[index + 1 :].count(position))
        if item is not None and (thing := item.value) is not MISSING:
            yield Held(frame, thing, position[0], sure=True)
    yield from _acquired(frame)


def local(frame: FrameType, name: str) -> Any:
    """A local or free variable of the frame, or `MISSING`."""
    scope = frame.f_locals
    if type(scope).__name__ not in {"dict", "FrameLocalsProxy"}:
        return MISSING  # the namespace of a metaclass may run code
    return scope.get(name, MISSING)


def attribute(thing: object, name: str) -> Any:
    """An attribute that is plain data or a function; nothing is called for it."""
    kind = type(thing)
    found = _in_bases(kind, name)
    if type(found) is types.MemberDescriptorType:  # a slot
        try:
            return found.__get__(thing, kind)
        except AttributeError:
            return MISSING
    if type in kind.__mro__ and (own := _in_bases(thing, name)) is not MISSING:
        return own
    own = _instance_dict(thing).get(name, MISSING)
    if own is not MISSING:
        return own
    data = type(found) in {property, functools.cached_property, types.GetSetDescriptorType}
    return MISSING if data else found


def source_line(filename: str, line: int) -> str:
    """A line of source without its indentation; empty when there is none."""
    lines = _lines(filename)
    return lines[line - 1].decode("utf-8", "replace").strip() if 0 < line <= len(lines) else ""


def _in_bases(kind: Any, name: str) -> Any:
    for base in type.__dict__["__mro__"].__get__(kind):
        names = type.__dict__["__dict__"].__get__(base)
        if name in names:
            return names[name]
    return MISSING


def _instance_dict(thing: object) -> dict[str, Any]:
    descriptor = _in_bases(type(thing), "__dict__")
    if type(descriptor) not in {types.GetSetDescriptorType, types.MemberDescriptorType}:
        return {}
    found = descriptor.__get__(thing, type(thing))
    return found if type(found) is dict else {}


def _evaluate(node: ast.expr, frame: FrameType) -> Any:
    """The value of names, attributes, constants, and items of plain dicts and lists."""
    kind, part = type(node).__name__, node.__dict__
    if kind == "Constant":
        return part["value"]
    if kind == "Name":
        name = part["id"]
        found = local(frame, name)
        for scope in (frame.f_globals, frame.f_builtins):
            found = scope.get(name, MISSING) if found is MISSING else found
        return found
    if kind == "Attribute":
        owner = _evaluate(part["value"], frame)
        return MISSING if owner is MISSING else attribute(owner, part["attr"])
    if kind == "Subscript":
        return _subscript(_evaluate(part["value"], frame), _evaluate(part["slice"], frame))
    return MISSING


def _subscript(owner: Any, index: Any) -> Any:
    # The exact types only: a subclass, or a key of the program's, may run code.
    try:
        if type(owner) is dict and type(index) in {str, int}:
            return owner[index]
        if type(owner) in {list, tuple} and type(index) is int:
            return owner[index]
    except LookupError:
        pass
    return MISSING


@functools.lru_cache(maxsize=64)
def _lines(filename: str) -> tuple[bytes, ...]:
    """A file's lines; linecache is asked only for what it has (a notebook's cells)."""
    cache = getattr(sys.modules.get("linecache"), "cache", {})
    entry = cache.get(filename, ())
    if len(entry) > 2:  # noqa: PLR2004 (size, time, lines, name; a lazy entry has one part)
        return tuple(line.rstrip("\n").encode() for line in entry[2])
    if filename.startswith("<"):
        return ()
    try:
        about = os.stat(filename)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _SOURCE_LIMIT_BYTES:
            return ()
        with open(filename, "rb") as file:
            return tuple(file.read(_SOURCE_LIMIT_BYTES).removeprefix(b"\xef\xbb\xbf").splitlines())
    except (OSError, ValueError):
        return ()


def _position(code: CodeType, offset: int) -> Position | None:
    """Lines from 1, columns in bytes of UTF-8; None when the compiler left it out."""
    for line, end_line, column, end_column in itertools.islice(
        code.co_positions(), offset // 2, offset // 2 + 1
    ):
        if line is None or end_line is None or column is None or end_column is None:
            return None
        return (line, end_line, column, end_column)
    return None


def _cut(lines: list[bytes] | tuple[bytes, ...], position: Position) -> bytes:
    line, end_line, column, end_column = position
    piece = list(lines[line - 1 : end_line])
    if len(piece) != end_line - line + 1:
        return b""
    piece[-1] = piece[-1][:end_column]
    piece[0] = piece[0][column:]
    return b"\n".join(piece)


def _item(frame: FrameType, position: Position, index: int) -> Expression | None:
    """The expression at a position; of a whole `with` statement, its item of that index."""
    segment = _cut(_lines(frame.f_code.co_filename), position)
    statement = segment.removeprefix(b"async").lstrip()
    if statement.startswith((b"with ", b"with(")):
        return _with_item(frame, statement, index)
    tree = _parse(b"(" + segment + b"\n)", "eval") if segment else None
    return None if tree is None else Expression(frame, tree.body, b"(" + segment + b"\n)")


def _with_item(frame: FrameType, statement: bytes, index: int) -> Expression | None:
    """One item of a `with` statement. Its head ends at one of the colons; no more is parsed."""
    colon = statement.find(b":")
    while 0 <= colon < _EXPRESSION_LIMIT_BYTES:
        head = statement[: colon + 1] + b" pass"
        if (tree := _parse(head, "exec")) is not None:
            items = tree.body[0].items
            return Expression(frame, items[min(index, len(items) - 1)].context_expr, head)
        colon = statement.find(b":", colon + 1)
    return None


@functools.lru_cache(maxsize=512)
def _parse(source: bytes, mode: str) -> Any:
    # A backslash may be an invalid escape, for which the parser warns: into logging, at worst,
    # whose lock the stuck thread may hold.
    if len(source) > _EXPRESSION_LIMIT_BYTES + 10 or b"\\" in source:
        return None
    try:
        return compile(source, "<wait>", mode, _ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@functools.cache
def _with_except_start() -> int:
    from opcode import opmap

    return opmap.get("WITH_EXCEPT_START", -1)


def _with_positions(frame: FrameType) -> Iterator[Position]:
    """The positions of the `with` statements (3.13: items) around a frame, innermost first."""
    code = frame.f_code
    if not code.co_exceptiontable:
        return
    operations, mark = code.co_code, _with_except_start()
    for target in _handlers(code, frame.f_lasti):
        # The handler of a `with` is PUSH_EXC_INFO, WITH_EXCEPT_START.
        if operations[target + 2 : target + 3] == bytes((mark,)):
            position = _position(code, target)
            if position is not None:
                yield position


def _handlers(code: CodeType, offset: int) -> Iterator[int]:
    """The exception handlers around an instruction: each is itself covered by the next one."""
    entries = _entries(code.co_exceptiontable)
    seen: set[int] = set()
    while True:
        for begin, length, target in entries:
            if begin * 2 <= offset < (begin + length) * 2:
                offset = target * 2
                break
        else:
            return
        if offset in seen:
            return
        seen.add(offset)
        yield offset


@functools.lru_cache(maxsize=512)
def _entries(table: bytes) -> list[tuple[int, int, int]]:
    """Begin, length and handler, in units of two bytes."""
    numbers = list(_varints(table))
    return list(zip(numbers[0::4], numbers[1::4], numbers[2::4], strict=False))


def _varints(table: bytes) -> Iterator[int]:
    """Six bits a byte, the highest first; 64 marks that more follow."""
    value = 0
    for byte in table:
        value = value << 6 | byte & 63
        if not byte & 64:
            yield value
            value = 0


def _acquired(frame: FrameType) -> Iterator[Held]:
    """Things with an `.acquire(` above the current line and no `.release(` in between: a guess."""
    code, here = frame.f_code, frame.f_lineno or 0
    lines = _lines(code.co_filename)
    if not any(b".acquire(" in line for line in lines[code.co_firstlineno - 1 : max(here - 1, 0)]):
        return
    # The calls of this code's own instructions: not those of a function that is defined in it.
    places: set[Any] = {place for place in code.co_positions() if None not in place}
    taken: dict[bytes, int] = {}
    for line, end_line, column, end_column in sorted(places):
        if end_line >= here:
            continue
        segment = _cut(lines, (line, end_line, column, end_column))
        head, called, _ = segment.partition(b"(")
        name, _, verb = head.rpartition(b".")
        if called and verb == b"acquire" and _WORD.issuperset(head):
            taken[name] = line
        elif called and verb == b"release":
            taken.pop(name, None)
    for name, number in taken.items():
        tree = _parse(name, "eval") if name else None
        thing = MISSING if tree is None else _evaluate(tree.body, frame)
        if thing is not MISSING:
            yield Held(frame, thing, number, sure=False)
