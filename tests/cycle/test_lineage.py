"""From an answer to its documents, from a document to its answers, and what a question brings with it."""

from __future__ import annotations

import pytest

from small_project import Project


@pytest.fixture
def asked(project: Project) -> tuple[Project, str]:
    answer = project.json("ask", "How do I clean my kettle?", "--user", "somebody")
    return project, answer["id"]


def test_both_ways(asked: tuple[Project, str]) -> None:
    project, interaction = asked
    up = project.json("lineage", interaction)
    kinds = {node["kind"] for node in up["nodes"]}
    assert {"interaction", "release", "model", "dataset", "document"} <= kinds
    assert up["verified"]
    assert {edge["role"] for edge in up["edges"]} <= {"made_by", "given", "similar"}
    made_by = {edge["to"] for edge in up["edges"] if edge["role"] == "made_by"}
    documents = [node["id"] for node in up["nodes"] if node["kind"] == "document" and node["id"] in made_by]
    assert len(documents) > 10
    down = project.json("lineage", "--down", documents[0])
    assert interaction in {node["id"] for node in down["nodes"]}


def test_a_limit_says_what_it_cut(asked: tuple[Project, str]) -> None:
    project, interaction = asked
    graph = project.json("lineage", interaction, "--limit", "5")
    assert graph["truncated"]["document"] > 5
    everything = project.json("lineage", interaction, "--limit", "0")
    assert everything["truncated"] == {}


def test_references(asked: tuple[Project, str]) -> None:
    project, interaction = asked
    for ref in ("model@v1", "dataset@v1", "@champion", "model/helper@v1"):
        assert project.json("lineage", ref)["verified"]
    digest = project.json("status")["champion"]["digest"]
    assert project.json("lineage", digest[:12])["root"] == digest
    assert interaction in {node["id"] for node in project.json("lineage", "--down", "dataset@v1")["nodes"]}
    for wrong in ("int-01K00000000000000000000000", "model@v9", "doc:nothing.of.the.kind", "b3:00000000", "nonsense"):
        assert project.call("lineage", wrong, check=2).stderr.startswith("treadle: ")


def test_recorded_answers_are_not_asked_again(asked: tuple[Project, str]) -> None:
    project, interaction = asked
    again = project.json("ask", "--recorded", "How do I clean my kettle?")
    assert again["id"] == interaction
