"""Registered models at an MLflow server: versions with the digest of the model in a tag, and their aliases.

MLflow counts versions by itself; the digest says which is which. The source of a version names the project and the
digest, and only Treadle opens it.
"""

from __future__ import annotations

from collections.abc import Callable

from treadle.core.fact import Row
from treadle.core.sink import SentRun, View
from treadle.integrations.mlflow_api import MlflowApi, Refused, pair

_DIGEST = "treadle.digest"


class MlflowModels:
    """``find``: the id that MLflow gave a run."""

    def __init__(self, view: View, api: MlflowApi, find: Callable[[SentRun], str | None]) -> None:
        self._view, self._api, self._find = view, api, find

    def bring_version(self, row: Row) -> None:
        """Register a model version, once."""
        body = row.body
        if self._version(body["name"], body["digest"]) is not None:
            return
        try:
            self._api.post("registered-models/create", {"name": body["name"]})
        except Refused as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        run = self._view.run(body["run"]) if body["run"] else None
        theirs = self._find(run) if run else None
        tags = [pair(_DIGEST, body["digest"]), pair("treadle.version", f"model/{body['name']}@v{body['number']}")]
        source = f"treadle:/{body['name']}/{body['digest'].removeprefix('b3:')}"
        made = {"name": body["name"], "source": source, "tags": tags, **({"run_id": theirs} if theirs else {})}
        self._api.post("model-versions/create", made)

    def _version(self, name: str, digest: str) -> str | None:
        """MLflow's number of the version with a digest; it counts by itself."""
        token, filter_ = "", f"name = '{name}'"
        while True:
            found = self._api.get(
                "model-versions/search", filter=filter_, max_results=200, **({"page_token": token} if token else {})
            )
            for each in found.get("model_versions", []):
                if {"key": _DIGEST, "value": digest} in each.get("tags", []):
                    return str(each["version"])
            token = found.get("next_page_token") or ""
            if not token:
                return None

    def bring_alias(self, row: Row) -> None:
        """Point an alias where it points here, or at nothing."""
        name, alias, number = row.body["name"], row.body["alias"], row.body["number"]
        digest = self._view.version(name, number) if number is not None else None
        theirs = self._version(name, digest) if digest else None
        if theirs is not None:
            self._api.post("registered-models/alias", {"name": name, "alias": alias, "version": theirs})
            return
        try:
            self._api.post("registered-models/alias", {"name": name, "alias": alias}, "DELETE")
        except Refused as error:  # there was none
            if error.code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise

    def drop_version(self, name: str, digest: str) -> None:
        """Delete a version whose files were erased."""
        theirs = self._version(name, digest)
        if theirs is not None:
            self._api.post("model-versions/delete", {"name": name, "version": theirs}, "DELETE")
