"""The record of one project: the workspace, and every noun that is kept in it."""

from __future__ import annotations

from treadle.core.workspace import Workspace
from treadle.record.alert import Alerts
from treadle.record.api_key import ApiKeys
from treadle.record.canary import Canaries
from treadle.record.card import CARDS, Cards
from treadle.record.deployment import Deployments
from treadle.record.document_index import DocumentIndex
from treadle.record.erasure import Erasures
from treadle.record.gate import Approvals
from treadle.record.interaction_index import InteractionIndex
from treadle.record.recorder import JournalRecorder
from treadle.record.turn import Turns
from treadle.record.version import ALIAS_TABLE, VERSIONS, Versions

PROJECTIONS = (VERSIONS, ALIAS_TABLE, CARDS)


class Record:
    """What the stages and the server leave for each other."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace = workspace
        self.name = name
        self.runs = workspace.runs
        self.store = workspace.store
        self.ledger = workspace.ledger
        self.versions = Versions(workspace.ledger, workspace.store, name)
        self.cards = Cards(workspace.ledger, workspace.store)
        self.approvals = Approvals(workspace.ledger)
        self.turns = Turns(workspace.ledger)
        self.canaries = Canaries(workspace.ledger)
        self.deployments = Deployments(workspace.ledger, self.versions, self.canaries)
        self.alerts = Alerts(workspace.ledger, name)
        self.api_keys = ApiKeys(workspace.database, workspace.ledger)
        self.erasures = Erasures(workspace.ledger, workspace.store, workspace.keys)
        self.recorder = JournalRecorder(workspace.journal, workspace.keys, workspace.ledger)
        self.interactions = InteractionIndex(workspace)
        workspace.closing.callback(self.interactions.close)
        self.documents = DocumentIndex(workspace)
        workspace.closing.callback(self.documents.close)
