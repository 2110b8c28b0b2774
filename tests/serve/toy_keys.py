"""A record's keys, as a server has them, and a server that counts by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from treadle.core.workspace import Workspace
from treadle.record.api_key import ApiKey, ApiKeys, Limit, Rules
from treadle.record.api_key_use import ApiKeyUse, Used, used

CLIENT = httpx.Client(timeout=30, trust_env=False)  # one for all: each costs time to make


class Book:
    """A real store's keys."""

    def __init__(self, root: Path, database: str | None = None) -> None:
        self.workspace = Workspace(root, database)
        self.keys = ApiKeys(self.workspace.database, self.workspace.ledger)

    def use(self) -> ApiKeyUse:
        """What a gateway is given."""
        return ApiKeyUse(self.workspace.database, self.workspace.state, self.keys, self.workspace.root / "uncounted")

    def create(self, name: str, *limits: Limit, seconds: float | None = None, **rules: Any) -> tuple[ApiKey, str]:
        return self.keys.create(name, Rules(limits=limits, **rules), seconds=seconds, actor="k3:me")

    def used(self, key: ApiKey) -> Used:
        return used(self.workspace.database).get(key.id, Used())

    def close(self) -> None:
        self.workspace.close()


def ask(
    url: str, key: str | None, text: str = "one two three", path: str = "chat/completions", **more: Any
) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}]} | more
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return CLIENT.post(f"{url}/v1/{path}", json=body, headers=headers)
