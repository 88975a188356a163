"""The one place that holds a document against its type, and words what does not fit.

Types are :mod:`msgspec` structs, typed dictionaries, containers, and ``Annotated`` numbers and texts. msgspec
decides; what is here finds the first part that it refuses and says what is allowed there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

import msgspec
from msgspec import UnsetType, inspect

from tdsnn.errors import TdsnnError, UsageError

T = TypeVar("T")

_SHOWN = 60
"""Characters of a value that a sentence repeats."""
_UNBOUNDED = 1e300
"""A bound that only keeps out what is no finite number."""
_ABSENT = (NoneType, UnsetType)
_TABLES, _LISTS = (dict, Mapping), (list, tuple, Sequence)
_WORDS: Mapping[type[inspect.Type], str] = {
    inspect.StrType: "a string",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
    inspect.NoneType: "nothing",
    inspect.DictType: "a table",
    inspect.StructType: "a table",
    inspect.TypedDictType: "a table",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
}


class _Fault(NamedTuple):
    """What is wrong with a document, as the rest of a sentence, and advice."""

    reason: str
    advice: str = ""


def check(
    document: Any,
    kind: type[T],
    *,
    name: str,
    at: str = "",
    also_known: Sequence[str] = (),
    recorded: bool = False,
    typed: bool = False,
    error: type[TdsnnError] = UsageError,
    hint: str = "",
) -> T:
    """A document as a ``kind``; its values are plain ones, as of TOML or JSON.

    Args:
        name: subject of the sentence about what does not fit, e.g. ``"The manifest of 'x'"``.
        at: dotted path of ``document``, if it is part of a larger one.
        also_known: keys from beside the document, to suggest in place of an unknown one.
        recorded: the program wrote the document, maybe another version of it: unknown keys are left out,
            where those that people write are refused.
        typed: values may be texts from a command line, such as ``"3"`` and ``"true"``.
        error: class of what is raised: one sentence, with ``hint``.
    """
    if recorded:
        document = _pruned(document, kind)
    try:
        return msgspec.convert(document, kind, strict=not typed)
    except msgspec.ValidationError as refused:
        fault = _find(document, kind, at, also_known, strict=not typed)
        stop = "" if fault.reason.endswith("?") else "."
        raise error(f"{name} {fault.reason}{stop}", hint=f"{fault.advice} {hint}".strip()) from refused


def _nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known word that is most like this one; empty if none is."""
    near = difflib.get_close_matches(word, [*known], n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _pruned(value: Any, kind: Any) -> Any:
    fields, _ = _fields(_present(kind))
    if not fields or not isinstance(value, Mapping):
        return value
    return {key: _pruned(value[key], inner) for key, inner in fields.items() if key in value}


def _find(value: Any, kind: Any, path: str, also_known: Sequence[str] = (), *, strict: bool) -> _Fault:
    """The first fault of a value that its type refuses."""
    kind = _present(kind)
    fields, required = _fields(kind)
    if _is_table(kind) and isinstance(value, Mapping):
        known = (*fields, *also_known)
        for key in value:
            if key not in fields and not is_typeddict(kind):
                reason = f"has an unknown key '{_inside(path, key)}'{_nearest(str(key), known)}"
                return _Fault(reason, f"Known: {', '.join(known)}." if known else "")
        for key in required:
            if key not in value:
                return _Fault(f"lacks the key '{_inside(path, key)}'")
    for where, part, inner in _parts(value, kind, fields, path):
        try:
            msgspec.convert(part, inner, strict=strict)
        except msgspec.ValidationError:
            return _find(part, inner, where, strict=strict)
    allowed, choices = _allowed(kind)
    place = f" for '{path}'" if path else ""
    return _Fault(f"needs {allowed}{place}, not {_shown(value)}{_nearest(str(value), choices)}")


def _present(kind: Any) -> Any:
    """The one type that may be absent (``None`` or unset stands beside it), or the type itself."""
    parts = get_args(kind)
    others = [one for one in parts if one not in _ABSENT]
    return others[0] if len(others) == 1 and len(others) < len(parts) else kind


def _is_table(kind: Any) -> bool:
    return isinstance(inspect.type_info(kind), inspect.StructType | inspect.TypedDictType)


def _fields(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """Keys of a table with their types, and which of them it cannot be without; empty for anything else."""
    if not _is_table(kind):
        return {}, []
    info: Any = inspect.type_info(kind)
    return get_type_hints(kind, include_extras=True), [field.name for field in info.fields if field.required]


def _parts(value: Any, kind: Any, fields: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, value, type) of what is directly inside a table or a list."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    inner = get_args(kind)
    if isinstance(value, Mapping):
        if get_origin(kind) in _TABLES:
            fields = dict.fromkeys(value, inner[1])
        yield from ((_inside(path, key), value[key], one) for key, one in fields.items() if key in value)
    elif isinstance(value, list | tuple) and get_origin(kind) in _LISTS:
        yield from ((f"{path}[{index}]", part, inner[0]) for index, part in enumerate(value))


def _inside(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _allowed(kind: Any) -> tuple[str, Sequence[str]]:
    """What a type takes, in words, and the texts to choose from if it names them."""
    info = inspect.type_info(kind)
    if isinstance(info, inspect.Metadata):
        described = (info.extra_json_schema or {}).get("description")
        if described:
            return described, ()
        info = info.type
    match info:
        case inspect.LiteralType(values=values):
            *others, last = map(repr, values)
            return f"{', '.join(others)} or {last}" if others else last, [*map(str, values)]
        case inspect.UnionType(types=types):
            words = dict.fromkeys(_WORDS[type(one)] for one in types)
            # Every whole number is a number.
            return " or ".join(
                word for word in words if word != "a whole number" or "a number" not in words
            ), ()
        case inspect.IntType() | inspect.FloatType():
            return f"{_WORDS[type(info)]}{_range(info)}", ()
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)} values", ()
        case inspect.VarTupleType(min_length=int(fewest)) if fewest > 0:
            return f"a list of at least {fewest} value", ()
    return _WORDS.get(type(info), "another value"), ()


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    low = next((bound for bound in (info.ge, info.gt) if bound is not None), None)
    high = next((bound for bound in (info.le, info.lt) if bound is not None), None)
    if low is None or (info.ge is not None and abs(info.ge) >= _UNBOUNDED):
        return ""
    above = f"of at least {_number(low)}" if info.gt is None else f"above {_number(low)}"
    if high is None or high >= _UNBOUNDED:
        return f" {above}"
    if info.gt is None and info.lt is None:
        return f" from {_number(low)} to {_number(high)}"
    return f" {above} and {'at most' if info.lt is None else 'below'} {_number(high)}"


def _number(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else f"{bound:g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
