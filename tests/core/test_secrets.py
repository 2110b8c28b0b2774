"""What looks like a secret does not get into what is stored."""

from __future__ import annotations

import pytest

from treadle.core.secrets import conceal, find, is_secret

SECRETS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "A1" * 15,
    "glpat-" + "x" * 20,
    "xoxb-1234567890-abc",
    "sk-" + "a" * 24,
    "sk-proj-" + "a_b-" * 8,
    "hf_" + "Q" * 34,
    "AIza" + "b" * 35,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27u",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\ncut off",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_known_shapes_are_concealed(secret: str) -> None:
    hidden = conceal(f"Traceback: could not reach it with {secret} at line 3")
    assert secret not in hidden
    assert "[secret]" in hidden
    assert hidden.startswith("Traceback: could not reach it with ")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://user:hunter2@host/x", "hunter2"),
        ("postgresql://me:p%40ss@db:5432/x", "p%40ss"),
        ("postgresql://user@corp:hunter2@host/x", "hunter2"),
        ("postgresql://me:hun@ter2@host/x", "ter2"),
        ("DRIVER={x};UID=sa;PWD=hunter2", "hunter2"),
        ("mssql://h/x?odbc_connect=UID%3Dsa%3BPWD%3Dhunter2", "hunter2"),
        ("password = 'hunter2hunter2'", "hunter2hunter2"),
        ("API_KEY: abcdef123", "abcdef123"),
        ("api-key=abcdef123 next", "abcdef123"),
        ('Token: "abcdef123"', "abcdef123"),
        ("+DB_PASSWORD=hunter22secret", "hunter22secret"),
        ('+WANDB_API_KEY = "0123456789"', "0123456789"),
        ('+    "api_key": "abcdef1234567890",', "abcdef1234567890"),
        ('{\\"api_key\\": \\"abcdef1234567890\\"}', "abcdef1234567890"),
        ('+os.environ["HF_TOKEN"] = "abcdef123"', "abcdef123"),
        ('os.environ.setdefault("HF_TOKEN", "abcdef123")', "abcdef123"),
        ('if pad_token: password = "hunter22"', "hunter22"),
        ('password: str = "correct horse battery"', "battery"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPx", "wJalrXUtnFEMI"),
        ("accessToken: abcdef123", "abcdef123"),
        ("OPENAI_KEY=abcdef123", "abcdef123"),
        ("redis://:hunter2@host", "hunter2"),
        ("DB_PASSWORD=p(ss)word1", "p(ss)word1"),
        ("PGPASSWORD=hunter22 psql", "hunter22"),
        ("Authorization: Bearer abcdefgh", "abcdefgh"),
        ('headers = {"Authorization": "Basic dXNlcjpwdw=="}', "dXNlcjpwdw"),
    ],
)
def test_passwords_in_urls_and_texts(text: str, secret: str) -> None:
    assert secret not in conceal(text)


@pytest.mark.parametrize(
    "text",
    [
        "ordinary words about tokens and keys",
        "https://host:8080/path@version",
        "postgresql://${env:ME}:${env:WORD}@host/x, postgresql://me:${env:WORD}@host/x",
        "password: ${env:DB_PASSWORD}",
        "the secret is out",
        "max_tokens: 100000",
        "max_tokens=24000, tokens: 3000, token_f1 = 0.123456",
        "loss_per_token: 0.00123456",
        "tokenizer: bytes-and-pairs, secretary: Margaret",
        "password_hash_function(password)",
        "PWD=/home/somebody/folder",
        "token = tokenizer.decode(ids), next_token = sampled",
        'token = os.environ["HF_TOKEN"], password=args.password',
        'pad_token = "<|endoftext|>", mask_token: "[MASK]"',
        'sort_key = "published_2024", monkey=see1234567',
        "a bearer of good tidings, Authorization: Bearer $TOKEN",
        "skip-" + "x" * 30,
        "",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert find(text) == []
    assert conceal(text) == text


def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "correct horse")
    monkeypatch.setenv("SERVICE_TOKEN_LONG", "correct horse battery staple")
    monkeypatch.setenv("OPENAI_APIKEY", "zyxwvutsrq")
    monkeypatch.setenv("MY_KEY", "short")
    monkeypatch.setenv("TOKENIZERS_CACHE", "/var/cache/tokenizers")
    monkeypatch.setenv("MONKEY_HOUSE", "in the zoological garden")
    ordinary = "short, /var/cache/tokenizers, in the zoological garden"
    text = f"a correct horse battery staple, a correct horse, zyxwvutsrq, {ordinary}"
    assert conceal(text) == f"a [secret], a [secret], [secret], {ordinary}"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("password", "hunter2", True),
        ("api_key", "abc", True),
        ("webhook_token", "abc", True),
        ("password", "${env:PASSWORD}", False),
        ("password", "", False),
        ("path", "data/file.jsonl", False),
        ("path", "s3://key:secretsecret@bucket", True),
        ("tokenizer", "bpe", False),
        ("hf-token", "abc", True),
        ("openai_key", "abcdefgh", True),
        ("aws-secret-access-key", "abc", True),
        ("passphrase", "x", True),
        ("text_key", "document_text", False),
        ("max_tokens", "24000", False),
        ("pad_token", "<pad>", False),
    ],
)
def test_settings_that_hold_a_secret(key: str, value: str, expected: bool) -> None:
    assert is_secret(key, value) is expected
