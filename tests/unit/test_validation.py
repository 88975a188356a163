"""Documents against their types: what passes, and the one sentence about what does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

import pytest
from msgspec import Meta

from tdsnn.errors import IntegrityError, UsageError
from tdsnn.schema import Finite, Table
from tdsnn.validation import check


class Figure(TypedDict):
    value: int | Finite


class Part(Table, frozen=True, kw_only=True):
    colour: Literal["red", "green"] = "red"
    size: Annotated[float, Meta(gt=0)] | None = None
    figures: Mapping[str, Figure] = {}


class Whole(Table, frozen=True, kw_only=True):
    title: str
    parts: Annotated[tuple[Part, ...], Meta(min_length=1)] = (Part(),)
    first: Part = Part()
    pair: tuple[int, int] = (0, 0)
    half: Annotated[float, Meta(ge=0, lt=0.5)] = 0.0
    code: Annotated[str, Meta(pattern=r"^[a-z]\Z", description="one letter")] = "a"
    only: Literal[1] = 1


def sentence(document: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        check(document, Whole, name="The thing", hint="Edit it", **options)
    assert caught.value.hint.endswith("Edit it")
    return caught.value.message


def test_a_table_that_takes_nothing_names_what_it_was_given() -> None:
    with pytest.raises(UsageError, match="The thing has an unknown key 'size'"):
        check({"size": 1}, Table, name="The thing")


def test_typed_texts_become_numbers_and_truth_values() -> None:
    class Typed(Table, frozen=True, kw_only=True):
        half: Annotated[float, Meta(ge=0, lt=0.5)] = 0.0
        even: bool = False
        code: str = ""

    given = {"half": "0.25", "even": "true", "code": "3"}
    assert check(given, Typed, name="It", typed=True) == Typed(half=0.25, even=True, code="3")
    for key, value in {"half": "0.5", "even": "maybe"}.items():
        with pytest.raises(UsageError, match=f"It needs .* for '{key}', not '{value}'"):
            check({"even": "true", "half": "0", key: value}, Typed, name="It", typed=True)
    with pytest.raises(UsageError, match="It needs a number"):
        check({"half": "0.25"}, Typed, name="It")


def test_a_document_becomes_its_type() -> None:
    given = {"title": "A", "parts": [{"colour": "green", "size": 2, "figures": {"a.b": {"value": 3}}}]}
    found = check(given, Whole, name="The thing")
    assert found == Whole(title="A", parts=(Part(colour="green", size=2.0, figures={"a.b": {"value": 3}}),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tilte": "A"}, "has an unknown key 'tilte'; did you mean 'title'?"),
        ({"other": 1}, "has an unknown key 'other'."),
        ({"title": 3}, "needs a string for 'title', not 3."),
        ({"parts": []}, "needs a list of at least 1 value for 'parts', not []."),
        ({"parts": {"a": 1}}, "needs a list of at least 1 value for 'parts', not {'a': 1}."),
        ({"parts": [{"figures": [3]}]}, "needs a table for 'parts[0].figures', not [3]."),
        ({"parts": "ab"}, "needs a list of at least 1 value for 'parts', not 'ab'."),
        ({"parts": [{}, 3]}, "needs a table for 'parts[1]', not 3."),
        ({"parts": [{"color": "red"}]}, "has an unknown key 'parts[0].color'; did you mean 'colour'?"),
        (
            {"parts": [{"colour": "gren"}]},
            "needs 'green' or 'red' for 'parts[0].colour', not 'gren'; did you mean 'green'?",
        ),
        ({"parts": [{"size": 0}]}, "needs a number above 0 for 'parts[0].size', not 0."),
        ({"parts": [{"size": "big"}]}, "needs a number above 0 for 'parts[0].size', not 'big'."),
        ({"parts": [{"figures": 1}]}, "needs a table for 'parts[0].figures', not 1."),
        ({"parts": [{"figures": {"a.b": {}}}]}, "lacks the key 'parts[0].figures.a.b.value'."),
        (
            {"parts": [{"figures": {"a": {"value": "3"}}}]},
            "needs a number for 'parts[0].figures.a.value', not '3'.",
        ),
        ({"pair": [1]}, "needs a list of 2 values for 'pair', not [1]."),
        ({"pair": [1, 2.5]}, "needs a whole number for 'pair[1]', not 2.5."),
        ({"half": 0.5}, "needs a number of at least 0 and below 0.5 for 'half', not 0.5."),
        ({"half": float("nan")}, "needs a number of at least 0 and below 0.5 for 'half', not nan."),
        ({"half": True}, "needs a number of at least 0 and below 0.5 for 'half', not True."),
        ({"code": "ab"}, "needs one letter for 'code', not 'ab'."),
        ({"code": "a\n"}, "needs one letter for 'code', not 'a\\n'."),
        ({"only": 2}, "needs 1 for 'only', not 2."),
        ({"title": ["x" * 99]}, f"needs a string for 'title', not {repr(['x' * 99])[:60]}...."),
    ],
)
def test_the_sentence_names_the_place_and_what_is_allowed(change: dict[str, Any], message: str) -> None:
    assert sentence({"title": "A"} | change) == f"The thing {message}"


def test_what_is_missing_or_no_table_at_all() -> None:
    assert sentence({}) == "The thing lacks the key 'title'."
    assert sentence([]) == "The thing needs a table, not []."
    assert sentence({"title": 1}, at="outer.inner").endswith("for 'outer.inner.title', not 1.")


def test_unknown_keys_are_listed_with_those_from_beside() -> None:
    with pytest.raises(UsageError) as caught:
        check({"bede": 1}, Part, name="The thing", also_known=("beside",))
    assert caught.value.message.endswith("did you mean 'beside'?")
    assert caught.value.hint == "Known: colour, size, figures, beside."


def test_what_was_recorded_may_have_keys_of_another_version() -> None:
    given = {"title": "A", "old": 1, "first": {"colour": "green", "shape": "round"}}
    found = check(given, Whole, name="The record", recorded=True)
    assert found == Whole(title="A", first=Part(colour="green"))
    with pytest.raises(IntegrityError, match=r"for 'first\.colour', not 'blue'"):
        check(given | {"first": {"colour": "blue"}}, Whole, name="x", recorded=True, error=IntegrityError)
