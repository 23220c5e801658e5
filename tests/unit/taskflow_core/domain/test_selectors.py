import pytest

from taskflow_core.domain.selectors import parse

LABELS = {"app": "web", "tier": "front", "example.com/owner": "a", "empty": ""}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier=front", True),
        ("app=web,tier=back", False),
        ("app!=web", False),
        ("other!=web", True),
        ("tier in (front, back)", True),
        ("tier in (back)", False),
        ("tier notin (back)", True),
        ("other notin (x)", True),
        ("other in (x)", False),
        ("app", True),
        ("other", False),
        ("!other", True),
        ("!app", False),
        ("example.com/owner=a", True),
        ("empty=", True),
        ("app=web,!other,tier in (front),example.com/owner", True),
        ("in=x", False),
    ],
)
def test_a_selector_matches_as_in_kubernetes(text: str, holds: bool) -> None:
    assert all(requirement.matches(LABELS) for requirement in parse(text)) is holds


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "=x",
        "a=b c",
        "a in ()x",
        "a in (b",
        "a=b,",
        ",",
        "-a=b",
        "a=-b",
        "a/b/c=d",
        "A/b=c",
        "a in (-b)",
        "a>1",
        "a" * 64,
        "a=" + "b" * 64,
        ",".join(["a=b"] * 17),
        "a in (" + ",".join("x" * 33) + ")",
        "a=b" + " " * 1022,
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(text)
