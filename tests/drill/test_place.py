"""Where a server is: reading it, and whether it is on this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.drill.place import BadPlace, Place


@pytest.mark.parametrize(
    ("text", "place", "shown"),
    [
        ("http://127.0.0.1:8000", Place("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", Place("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        ("HTTP://LocalHost", Place("localhost", 80), "http://localhost"),
        ("https://shop.example", Place("shop.example", 443, tls=True), "https://shop.example"),
        ("https://a_b:80", Place("a_b", 80, tls=True), "https://a_b:80"),
        ("http://a:443", Place("a", 443), "http://a:443"),
        ("https://[::1]:8443", Place("::1", 8443, tls=True), "https://[::1]:8443"),
        ("unix:/run/app.sock", Place(unix="/run/app.sock"), "unix:/run/app.sock"),
    ],
)
def test_a_place_is_read_and_shown(text: str, place: Place, shown: str) -> None:
    """What is written is understood, and said in its shortest form, which reads as the same."""
    assert Place.parse(text) == place
    assert str(place) == shown
    assert Place.parse(shown) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "127.0.0.1:8000",
        "http://",
        "http://:80",
        "ftp://a",
        "unix:",
        f"unix:/{'a' * 107}",
        "http://a:0",
        "http://a:65536",
        "http://a:-1",
        "http://a:x",
        "http://[::1",
        "http://[zz]:1",
        "http://a b",
        "http://a\r\nX: y",
        "http://a\tb",
        "http://é:1",
        "http://a..b",
        "http://-a",
        f"http://{'a' * 64}",
        f"http://{'a.' * 150}a",
        "http://user:secret@a",
        "http://a/report",
        "http://a?x",
        "http://a#x",
        "http://a\\@b",
    ],
)
def test_what_is_no_place(text: str) -> None:
    """Anything else is refused, with what it could look like."""
    with pytest.raises(BadPlace) as caught:
        Place.parse(text)
    assert caught.value.advice
    assert "secret" not in caught.value.what


@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://", "unix:", "http://["]))
def test_whatever_is_written_is_read_or_refused(text: str, begin: str) -> None:
    """Any text is a place or BadPlace; a place never carries what would break a header."""
    try:
        place = Place.parse(f"{begin}{text}")
    except BadPlace:
        return
    assert place.unix or 0 < place.port < 65536
    assert place.authority.isascii()
    assert place.authority.isprintable()
    assert " " not in place.authority
    assert Place.parse(str(place)) == place


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("127.example.com", False),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1", False),
        ("example.com", False),
    ],
)
def test_only_loopback_is_on_this_machine(host: str, here: bool) -> None:  # noqa: FBT001 (a table)
    """A name that only looks like a loopback address is none."""
    assert Place(host, 80).on_this_machine is here
    assert not Place(host, 0, unix="/x").on_this_machine
