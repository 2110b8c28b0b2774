"""A release tried beside another on Kubernetes: what is rendered of the two, and what ends it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import debian
from described_release import described
from toy_cluster import KUBECTL, cluster
from treadle.core.errors import UserError
from treadle.integrations import kubernetes_route
from treadle.serve.replies import RELEASE as RELEASE_HEADER
from treadle.stages.deploy.targets import Rendering, Written, carry_out, conclude, find_target, render, shown

OLD = described("Docs_Assistant")
NEW = described("Docs_Assistant", version=4, digest="cd")
ROUTED = {"namespace": "models", "gateway": "infra/web", "host": "models.example.org"}
TRIED = {**ROUTED, "canary": "model@v4"}
OBJECTS = ("deployment", "service", "autoscaler", "disruption", "network")


def rendered(out: Path, release: Rendering = OLD, **settings: Any) -> Written:
    """A folder, with the new release beside the old one where the settings say so."""
    return render("kubernetes", release, out, settings, find=lambda _: NEW)[0]


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def closed(schema: Any) -> Any:
    """A schema that knows no other fields, as a server takes them; metadata has its own."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(each) for name, each in schema.items()}
    return made | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else made


def schemas() -> list[Any]:
    """Of an HTTPRoute: what is kept of the Gateway API's, and its own definition where ``TREADLE_HTTPROUTE_CRD`` names
    that file."""
    found = [read(Path(__file__).with_name("httproute_schema.yaml"))]
    if definition := os.environ.get("TREADLE_HTTPROUTE_CRD"):
        versions = read(Path(definition))["spec"]["versions"]
        found += [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
    return [closed(each) for each in found]


@pytest.mark.parametrize("settings", [ROUTED, TRIED, {**TRIED, "share": 0}, {"gateway": "web"}], ids=str)
def test_the_route_is_one_of_the_gateway_api(settings: dict[str, Any], tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    rendered(tmp_path, **settings)
    made = read(tmp_path / "route.yaml")
    assert (made["apiVersion"], made["kind"]) == ("gateway.networking.k8s.io/v1", "HTTPRoute")
    for schema in schemas():
        check = jsonschema.Draft202012Validator(schema)
        check.validate(made)
        for wrong in ({"rule": []}, {"hostnames": ["Models"]}, {"rules": []}, {"parentRefs": [{"kind": "Gateway"}]}):
            assert list(check.iter_errors({**made, "spec": {**made["spec"], **wrong}}))


def test_two_releases_share_the_requests_and_each_can_be_asked_by_name(tmp_path: Path) -> None:
    assert kubernetes_route.HEADERS[0] == RELEASE_HEADER  # what an answer brings, a client can send back
    rendered(tmp_path, **TRIED, share=0.125)
    found = read(tmp_path / "route.yaml")["spec"]
    assert found["parentRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web", "namespace": "infra"}
    ]
    assert found["hostnames"] == ["models.example.org"]
    *named, shared = found["rules"]
    asked = {
        (match["headers"][0]["name"], match["headers"][0]["value"]): rule["backendRefs"][0]["name"]
        for rule in named
        for match in rule["matches"]
    }
    assert asked == {
        ("treadle-release", OLD.digest): "docs-assistant",
        ("treadle-model", "Docs_Assistant@v3"): "docs-assistant",
        ("treadle-release", NEW.digest): "docs-assistant-canary",
        ("treadle-model", "Docs_Assistant@v4"): "docs-assistant-canary",
    }
    weights = {each["name"]: each["weight"] for each in shared["backendRefs"]}
    assert weights == {"docs-assistant": 875, "docs-assistant-canary": 125}
    for name in weights:
        service = read(tmp_path / ("service.yaml" if name == "docs-assistant" else "canary-service.yaml"))
        assert service["metadata"]["name"] == name
        assert service["spec"]["ports"][0]["port"] == 80


def test_a_name_of_both_asks_for_neither(tmp_path: Path) -> None:
    same = replace(NEW, model=OLD.model)
    render("kubernetes", OLD, tmp_path, TRIED, find=lambda _: same)
    *named, _ = read(tmp_path / "route.yaml")["spec"]["rules"]
    headers = [match["headers"][0]["name"] for rule in named for match in rule["matches"]]
    assert headers == ["treadle-release"] * 2


def test_each_release_has_everything_to_itself(tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    rendered(tmp_path, **TRIED, replicas=4, most=30)
    sides = [[read(tmp_path / f"{before}{name}.yaml") for name in OBJECTS] for before in ("", "canary-")]
    for deployment, service, autoscaler, disruption, network in sides:
        for each in (deployment, service, autoscaler, disruption, network):
            validate(each, "1.31", strict=True)
            assert each["metadata"]["namespace"] == "models"
        pods = deployment["spec"]["template"]["metadata"]["labels"]
        selectors = [
            deployment["spec"]["selector"]["matchLabels"],
            service["spec"]["selector"],
            disruption["spec"]["selector"]["matchLabels"],
            network["spec"]["podSelector"]["matchLabels"],
        ]
        assert all(selector.items() <= pods.items() for selector in selectors)
        assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"]  # the autoscaler's alone
    old, new = (side[0]["spec"]["template"] for side in sides)
    for side, other in ((sides[0], new), (sides[1], old)):
        assert not side[1]["spec"]["selector"].items() <= other["metadata"]["labels"].items()
    assert [each["metadata"]["annotations"]["treadle/release"] for each in (old, new)] == [OLD.digest, NEW.digest]
    images = [each["spec"]["containers"][0]["image"] for each in (old, new)]
    assert images == [f"localhost/treadle-docs-assistant:{each.tag}" for each in (OLD, NEW)]
    scale = [(side[2]["spec"]["minReplicas"], side[2]["spec"]["maxReplicas"]) for side in sides]
    assert scale == [(4, 30), (2, 3)]
    marked = [
        {"treadle/canary-of": "docs-assistant"}.items() <= each["metadata"]["labels"].items() for each in sides[1]
    ]
    assert all(marked)


def test_it_begins_and_ends_with_its_own_files_alone(tmp_path: Path) -> None:
    alone = rendered(tmp_path, **ROUTED)
    before = {path: (tmp_path / path).read_bytes() for path in alone.files}
    written = rendered(tmp_path, **TRIED, share=0.25)
    beside = {f"canary-{name}.yaml" for name in OBJECTS}
    assert set(written.files) == {*alone.files, *beside}
    changed = {path for path, content in before.items() if (tmp_path / path).read_bytes() != content}
    assert changed == {"route.yaml", "kustomization.yaml"}
    assert written.settings["canary"] == NEW.digest  # and not the name, which may be another's tomorrow
    assert Written.read(tmp_path) == written
    assert written.shares() == [(OLD.digest, OLD.model, 0.75), (NEW.digest, NEW.model, 0.25)]
    assert render("kubernetes", OLD, tmp_path, {**TRIED, "share": 0.25}, find=lambda _: NEW)[1] == []
    other = tmp_path / "other"
    rendered(other, **TRIED, share=0.25)
    for path in [*written.files, "treadle.json"]:
        assert (tmp_path / path).read_bytes() == (other / path).read_bytes(), path
    promoted = rendered(tmp_path, NEW, **ROUTED)
    assert set(promoted.files) == set(alone.files)
    assert not any((tmp_path / path).exists() for path in beside)
    (rule,) = read(tmp_path / "route.yaml")["spec"]["rules"]
    assert [each["name"] for each in rule["backendRefs"]] == ["docs-assistant"]
    labels = read(tmp_path / "route.yaml")["metadata"]["labels"]
    assert "treadle/canary-of" not in labels  # or it would go with the canary
    image = read(tmp_path / "deployment.yaml")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image.endswith(NEW.tag)


def test_kubectl_makes_all_of_it_of_the_base(tmp_path: Path) -> None:
    kubectl = debian.kubectl()
    rendered(tmp_path, **TRIED)
    done = subprocess.run([kubectl, "kustomize", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = [(each["kind"], each["metadata"]["name"]) for each in yaml.safe_load_all(done.stdout)]
    kinds = ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy")
    names = ("docs-assistant", "docs-assistant-canary")
    assert sorted(made) == sorted([*((kind, name) for kind in kinds for name in names), ("HTTPRoute", names[0])])


def test_requests_are_sent_once_both_have_answered_and_not_to_what_goes(tmp_path: Path) -> None:
    written = rendered(tmp_path, **TRIED, kube_context="prod")
    target = find_target("kubernetes", written.settings, None)
    plan = target.apply(written)
    assert plan.endpoint == "kubernetes:prod/models/docs-assistant"
    routed = "kubectl --context prod apply -f route.yaml"
    said = shown(plan)
    assert said[1:5] == [
        "kubectl --context prod apply -k . -l 'app.kubernetes.io/component!=route'",
        "kubectl --context prod -n models rollout status deployment/docs-assistant --timeout=300s",
        "kubectl --context prod -n models rollout status deployment/docs-assistant-canary --timeout=300s",
        routed,
    ]
    assert routed not in shown(replace(plan, then=()))
    assert [(each.slug, each.release) for each in written.answering()] == [
        ("docs-assistant", OLD.digest),
        ("docs-assistant-canary", NEW.digest),
    ]
    assert "treadle/canary-of" not in " ".join(said)
    assert shown(target.down(written)) == [
        "kubectl --context prod delete -f route.yaml --ignore-not-found",
        "kubectl --context prod delete -k . --ignore-not-found",
    ]
    promoted = rendered(tmp_path, NEW, **ROUTED, kube_context="prod")
    last = shown(find_target("kubernetes", promoted.settings, None).apply(promoted))[-3:]
    assert last[0] == routed
    assert last[2].startswith("kubectl --context prod -n models delete httproute,deployment,service,")


@pytest.fixture
def kubectl(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the configuration of the real program, which no context is current in."""
    debian.kubectl(KUBECTL)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))  # where it keeps what it found out of a cluster
    monkeypatch.setenv("KUBECONFIG", str(home / "config"))
    return home


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "treadle-api-key"}}


def test_kubectl_itself_begins_promotes_and_ends_it(tmp_path: Path, kubectl: Path) -> None:
    def applied(release: Rendering, **settings: Any) -> list[tuple[str, str, str]]:
        """What a folder changes in the cluster, from before the question to after it."""
        written = rendered(tmp_path, release, **settings, kube_context="toy")
        plan = find_target("kubernetes", written.settings, None).apply(written)
        there.done.clear()
        carry_out(plan, tmp_path)
        assert not any("httproutes" in each for each in there.done)
        there.done.append(("ask", "both", ""))
        conclude(plan, tmp_path)
        return list(there.done)

    key = ("httproutes", "models", "docs-assistant")
    with cluster(kubectl, gateways=("web",)) as there:
        with pytest.raises(UserError, match="namespace models has no secret treadle-api-key"):
            applied(OLD, **ROUTED)
        assert not there.objects
        there.put(("secrets", "models", "treadle-api-key"), SECRET)
        done = applied(OLD, **ROUTED)
        assert done[-1] == ("create", *key[::2])
        done = applied(OLD, **TRIED)
        assert {verb for verb, _, name in done if name.endswith("-canary")} == {"create"}
        assert [each for each in done if not each[2].endswith("-canary")] == [
            ("ask", "both", ""),
            ("change", *key[::2]),
        ]
        assert len(there.objects[key]["spec"]["rules"]) == 3
        assert applied(OLD, **TRIED) == [("ask", "both", "")]
        done = applied(NEW, **ROUTED)
        asked = done.index(("ask", "both", ""))
        assert ("change", "deployments", "docs-assistant") in done[:asked]
        assert done[asked + 1] == ("change", *key[::2])  # nothing is sent there before it goes
        assert {verb for verb, _, _ in done[asked + 2 :]} == {"delete"}
        assert there.names("deployments") == ["docs-assistant"]
        assert len(there.objects) == 7  # with route and secret
        assert len(there.objects[key]["spec"]["rules"]) == 1
        written = rendered(tmp_path, NEW, **ROUTED, kube_context="toy")
        carry_out(find_target("kubernetes", written.settings, None).down(written), tmp_path)
        assert [kind for kind, _, _ in there.objects] == ["secrets"]


def test_kubectl_ends_a_canary_whose_route_is_not_rendered_any_more(tmp_path: Path, kubectl: Path) -> None:
    with cluster(kubectl, gateways=("web",)) as there:
        there.put(("secrets", "models", "treadle-api-key"), SECRET)
        for settings in (TRIED, {"namespace": "models"}):
            written = rendered(tmp_path, **settings, kube_context="toy")
            plan = find_target("kubernetes", written.settings, None).apply(written)
            carry_out(plan, tmp_path)
            conclude(plan, tmp_path)
        assert there.names("httproutes") == []
        assert there.names("deployments") == ["docs-assistant"]


def test_kubectl_says_that_no_gateway_takes_the_route(tmp_path: Path, kubectl: Path) -> None:
    with cluster(kubectl) as there:
        there.put(("secrets", "models", "treadle-api-key"), SECRET)
        written = rendered(tmp_path, **ROUTED, kube_context="toy")
        plan = find_target("kubernetes", written.settings, None).apply(written)
        carry_out(plan, tmp_path)
        applied, *rest = plan.then
        waits = [tuple("--timeout=1s" if word == "--timeout=60s" else word for word in each) for each in rest[:1]]
        with pytest.raises(UserError, match="kubectl --context toy -n models wait httproute/docs-assistant"):
            conclude(replace(plan, then=(applied, *waits)), tmp_path)


def test_a_cluster_without_the_gateway_api_is_asked_nothing_of_it(tmp_path: Path, kubectl: Path) -> None:
    with cluster(kubectl, without=("gateway.networking.k8s.io/v1",)) as there:
        there.put(("secrets", "models", "treadle-api-key"), SECRET)
        written = rendered(tmp_path, namespace="models", kube_context="toy")
        target = find_target("kubernetes", written.settings, None)
        for plan in (target.apply(written), target.down(written)):
            carry_out(plan, tmp_path)
            conclude(plan, tmp_path)
        assert [kind for kind, _, _ in there.objects] == ["secrets"]


def test_kubectl_tries_it_on_kserve(tmp_path: Path, kubectl: Path) -> None:
    key = ("inferenceservices", "models", "docs-assistant")

    def applied(release: Rendering, **settings: Any) -> dict[str, Any]:
        given = {"namespace": "models", "kube_context": "toy", **settings}
        written = render("kserve", release, tmp_path, given, find=lambda _: NEW)[0]
        carry_out(find_target("kserve", written.settings, None).apply(written), tmp_path)
        predictor: dict[str, Any] = there.objects[key]["spec"]["predictor"]
        return predictor

    with cluster(kubectl) as there:
        there.put(("secrets", "models", "treadle-api-key"), SECRET)
        with pytest.raises(UserError, match=r"does not run Docs_Assistant@v3"):
            applied(OLD, canary="model@v4")
        assert key not in there.objects
        assert "canaryTrafficPercent" not in applied(OLD)
        assert applied(OLD, canary="model@v4")["canaryTrafficPercent"] == 10
        assert applied(OLD, canary="model@v4", share=0.5)["canaryTrafficPercent"] == 50
        promoted = applied(NEW)
        assert "canaryTrafficPercent" not in promoted
        assert promoted["containers"][0]["image"].endswith(NEW.tag)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"canary": "model@v4"}, "canary needs a Gateway that shares the requests"),
        ({**TRIED, "share": 1}, "share 1.0: expected a part of the requests from 0 to 1"),
        ({**TRIED, "share": -0.1}, "share -0.1: expected a part"),
        ({**TRIED, "share": "much"}, "share: "),
        ({**TRIED, "image": "registry.example/helper:3"}, "name the images of both releases"),
        ({**ROUTED, "canary_image": "registry.example/helper:4"}, "canary_image is of a canary"),
        ({"gateway": "a/b/c"}, "expected the NAME or NAMESPACE/NAME of a Gateway"),
        ({"gateway": "--all"}, "expected the NAME or NAMESPACE/NAME of a Gateway"),
        ({"gateway": "web", "host": "Models.example.org"}, "expected a name in small letters"),
        ({"host": "models.example.org"}, "host is a route's"),
        ({"gateway": "web", "tool": "podman"}, "podman plays one Deployment"),
        ({"namespace": "-A"}, "expected small letters, digits and hyphens"),
        ({"kube_context": "--kubeconfig=/x"}, "expected one that kubectl config names"),
        ({"replicas": 3, "most": 2}, "replicas 3, most 2: expected 1 or more, and most no fewer"),
        ({"cpus": 0}, "cpus 0: expected 1 or more"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        rendered(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_release_is_no_canary_of_itself_nor_of_one_that_is_asked_otherwise(tmp_path: Path) -> None:
    for found, said in (
        (replace(OLD, model="again@v3"), "is the release itself"),
        (replace(NEW, spec=replace(NEW.spec, asking="classify")), "is asked to classify, Docs_Assistant@v3 to chat"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            render("kubernetes", OLD, tmp_path, TRIED, find=lambda _, found=found: found)
    with pytest.raises(UserError, match="no project here to look it up in"):
        render("kubernetes", OLD, tmp_path, TRIED)
    with pytest.raises(UserError, match="no setting 'canary'"):
        render("docker", OLD, tmp_path, {"canary": "model@v4"}, find=lambda _: NEW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"release": "b3:../../x"},
        {"model": "a b"},
        {"share": 1},
        {"share": "0.1"},
        {"more": 1},
        [],
    ],
    ids=str,
)
def test_a_folder_of_somebody_elses_names_no_other_canary(tmp_path: Path, wrong: Any) -> None:
    rendered(tmp_path, **TRIED)
    path = tmp_path / "treadle.json"
    said = json.loads(path.read_text())
    said["canary"] = {**said["canary"], **wrong} if isinstance(wrong, dict) else wrong
    path.write_text(json.dumps(said))
    with pytest.raises(UserError, match="is not what treadle render wrote"):
        Written.read(tmp_path)


def test_what_an_upstream_needs_reaches_its_pods(tmp_path: Path) -> None:
    servers = {"urls": ["${env:SERVERS}"], "model": "helper", "api_key": "${env:UPSTREAM_KEY}"}
    spec = replace(OLD.spec, engine="upstream", optimization={"settings": servers})
    rendered(tmp_path, replace(OLD, spec=spec, engine="upstream"))
    (container,) = read(tmp_path / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in container["env"]] == ["TREADLE_API_KEY", "SERVERS", "UPSTREAM_KEY"]
    assert read(tmp_path / "network.yaml")["spec"]["egress"] == [{}]
    needs = (tmp_path / "kustomization.yaml").read_text()
    assert '"$TREADLE_API_KEY" "$SERVERS" "$UPSTREAM_KEY" | kubectl' in needs


def test_kserve_tries_it_as_the_newest_revision(tmp_path: Path) -> None:
    def made(release: Rendering = OLD, **settings: Any) -> tuple[Written, Any]:
        written = render("kserve", release, tmp_path, {"namespace": "models", **settings}, find=lambda _: NEW)[0]
        return written, read(tmp_path / "inferenceservice.yaml")

    assert "canaryTrafficPercent" not in made()[1]["spec"]["predictor"]
    written, service = made(canary="model@v4", share=0.29)
    predictor = service["spec"]["predictor"]
    assert predictor["canaryTrafficPercent"] == 29
    assert predictor["containers"][0]["image"].endswith(NEW.tag)
    assert service["metadata"]["annotations"] == {
        "treadle/release": NEW.digest,
        "treadle/beside": OLD.digest,
        "serving.kserve.io/enable-tag-routing": "true",
    }
    said = shown(find_target("kserve", written.settings, None).apply(written))
    assert said[1:3] == [
        "look whether Docs_Assistant@v3 is rolled out as inferenceservice/docs-assistant",
        "kubectl apply -f inferenceservice.yaml",
    ]
    promoted = made(NEW)[1]
    del predictor["canaryTrafficPercent"]
    assert promoted["spec"]["predictor"] == predictor  # all that KServe needs to be told
    with pytest.raises(UserError, match="KServe takes whole percents"):
        made(canary="model@v4", share=0.125)
    if definition := os.environ.get("TREADLE_INFERENCESERVICE_CRD"):
        jsonschema = pytest.importorskip("jsonschema")
        versions = read(Path(definition))["spec"]["versions"]
        (schema,) = [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1beta1"]
        check = jsonschema.Draft202012Validator(closed(schema))
        check.validate(service)
        assert list(check.iter_errors({**service, "spec": {"predictor": {"canaryTraffic": 10}}}))
