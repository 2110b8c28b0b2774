"""Takes a file of events apart into the classes of OpenLineage's own client, which check them: ``FILE``.

Prints how many events and facets there were. A key that a class does not know, or lacks, is an error.
"""

import json
import sys
from pathlib import Path

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated import (
    dataset_version_dataset,
    job_type_job,
    parent_run,
    processing_engine_run,
)
from openlineage.client.serde import Serde

KNOWN = {
    "version": dataset_version_dataset.DatasetVersionDatasetFacet,
    "jobType": job_type_job.JobTypeJobFacet,
    "processing_engine": processing_engine_run.ProcessingEngineRunFacet,
}
counts = {"events": 0, "facets": 0}


def facets(given):
    made = {}
    for name, facet in given.items():
        counts["facets"] += 1
        value = {key: item for key, item in facet.items() if not key.startswith("_")}
        if name == "parent":
            parents = {"run": parent_run.Run(**value["run"]), "job": parent_run.Job(**value["job"])}
            made[name] = parent_run.ParentRunFacet(**parents)
        elif name in KNOWN:
            made[name] = KNOWN[name](**value)
        else:
            assert name.startswith("treadle_"), name
            continue
        assert made[name]._schemaURL.rpartition("/")[2] == facet["_schemaURL"].rpartition("/")[2]
    return made


def datasets(kind, given):
    return [kind(each["namespace"], each["name"], facets(each["facets"])) for each in given]


for line in Path(sys.argv[1]).read_text().splitlines():
    event = json.loads(line)
    run = Run(event["run"]["runId"], facets(event["run"]["facets"]))
    job = Job(event["job"]["namespace"], event["job"]["name"], facets(event["job"]["facets"]))
    made = RunEvent(
        eventType=RunState[event["eventType"]],
        eventTime=event["eventTime"],
        run=run,
        job=job,
        producer=event["producer"],
        inputs=datasets(InputDataset, event["inputs"]),
        outputs=datasets(OutputDataset, event["outputs"]),
    )
    assert made.schemaURL == event["schemaURL"], made.schemaURL
    again = json.loads(Serde.to_json(made))
    assert again["run"]["runId"] == event["run"]["runId"]
    assert len(again["outputs"]) == len(event["outputs"])
    counts["events"] += 1
print(json.dumps(counts))
