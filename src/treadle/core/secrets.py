"""Secrets do not enter the store, the ledger or a log: what looks like one is found and concealed."""

from __future__ import annotations

import os
import re

# Shapes published by the issuers, and the usual spellings of a password in a text or a URL.
_SHAPES = re.compile(
    r"""(?x)
    \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                                # AWS access key id
    | \bgh[pousr]_[A-Za-z0-9]{36,}\b                             # GitHub token
    | \bglpat-[A-Za-z0-9_-]{20,}                                 # GitLab token
    | \bxox[abprs]-[A-Za-z0-9-]{10,}                             # Slack token
    | \bsk-[A-Za-z0-9_-]{20,}                                    # OpenAI style key
    | \bhf_[A-Za-z0-9]{30,}\b                                    # Hugging Face token
    | -----BEGIN[ A-Z]*PRIVATE\ KEY-----(?s:.*?)-----END[ A-Z]*PRIVATE\ KEY-----
    | (?<=://)[^\s/:@]+:[^\s/@]+(?=@)                            # user:password in a URL
    | (?i:\b(?:password|passwd|secret|token|api[_-]?key)\b\s*[:=]\s*["']?)[^\s"']{6,}
    """
)
_NAMES = re.compile(r"(?i)(?:key|token|secret|password|passwd|credential)")
_SHORTEST = 8  # characters; shorter values of the environment would conceal ordinary words


def find(text: str) -> list[str]:
    """What looks like a secret in ``text``, and values of the environment whose name says that they are one."""
    found = [match.group() for match in _SHAPES.finditer(text)]
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name) and value in text:
            found.append(value)
    return found


def conceal(text: str) -> str:
    """The text with every secret replaced by ``[secret]``."""
    for secret in find(text):
        text = text.replace(secret, "[secret]")
    return text
