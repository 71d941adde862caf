"""Secrets and the user's home are seen, and ordinary words are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesdiff.core import privacy
from bayesdiff.core.privacy import REMOVED, at_home, has_secret, public, redacted, without_home

TOKENS = [
    "hf_" + "abcdefgh" * 4,
    "hf_Ab12Cd34Ef56",
    "sk-" + "proj-abcDEF123456",
    "ghp_" + "a1B2" * 9,
    "xoxb-" + "1234567890ab",
    "AKIA" + "ABCDEFGH12345678",
]
WORDS = ["hf_energy", "hf_relative", "sks-dog-in-the-snow", "task-something1234", "a photo of sks dog", "p=0.05",
         "toybox-lora-seed0-4eda2a7324d0", "8" * 40, "d0f4" * 16, "max_tokens=77", "a token=5"]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_seen_wherever_they_stand(token: str) -> None:
    for text in (token, f"x {token} y", f"key={token}", f'{{"a": "{token}"}}', f"https://u:{token}@host/x"):
        assert has_secret(text)
        assert token not in redacted(text)
        assert not has_secret(redacted(text))


@pytest.mark.parametrize("word", WORDS)
def test_ordinary_words_are_left_alone(word: str) -> None:
    assert not has_secret(word)
    assert redacted(word) == word


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "MY_SECRET"])
def test_values_of_secret_variables_are_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "plain-looking")
    assert has_secret("a plain-looking thing")
    assert redacted("a plain-looking thing") == f"a {REMOVED} thing"


def test_paths_and_short_values_of_variables_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_TOKEN", "/etc/keys/file.json")
    monkeypatch.setenv("A_TOKEN", "dog")
    assert not has_secret("/etc/keys/file.json dog")


def test_a_name_with_its_value_is_seen() -> None:
    assert redacted("WANDB_API_KEY=abcdefghijkl --tracker.api_key=mnopqrstuv") == f"WANDB_API_KEY={REMOVED} --tracker.api_key={REMOVED}"


def test_the_home_folder_is_a_tilde_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    said = {"/home/alice/photos": "~/photos", "local-dir:/home/alice/x": "local-dir:~/x", "a=/home/alice": "a=~",
            "/home/alice2": "/home/alice2", "/mnt/home/alice/x": "/mnt/home/alice/x",
            "see /home/alice/x and /home/alice.": "see ~/x and /home/alice."}  # fmt: skip
    assert {text: without_home(text) for text in said} == said
    assert [at_home(text) for text in ("~/photos", "local-dir:~/x", "~", "a ~/b")] == [
        "/home/alice/photos", "local-dir:/home/alice/x", "/home/alice", "a ~/b",
    ]  # fmt: skip


def test_a_home_at_the_root_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert without_home("/photos") == "/photos"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(TOKENS).map(lambda token: f"a {token} b"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@given(JSON)
def test_no_token_survives_in_any_structure(content: object) -> None:
    said = repr(public(content))
    assert not any(token in said for token in TOKENS)
    assert public(public(content)) == public(content)


def test_what_has_nothing_to_hide_is_kept(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, True, "x"], "b": {"c": str(tmp_path)}}
    assert public(content) == content


NAMES = [
    "api_key",
    "API-Key",
    "access_key",
    "ToKen",
    "to\u212aen",
    "\u017fecret",
    "passwort",
    "PASSWORD",
    "passwd",
    "passphrase",
    "key",
    "x",
]


@given(st.lists(st.sampled_from([*NAMES, "=", "=", "-", "_", " ", "abcdefgh", "\u00df12345678"]), max_size=12).map("".join))
def test_looking_for_names_first_changes_nothing(text: str) -> None:
    assert redacted(text) == privacy._NAMED.sub(rf"\1={REMOVED}", privacy._TOKEN.sub(REMOVED, text))
    assert has_secret(text) == bool(privacy._NAMED.search(text) or privacy._TOKEN.search(text))
