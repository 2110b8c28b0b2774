"""Prints what Comet's archives say, one after the other: ``read_comet.py ZIP ...``."""

import json
import sys
import zipfile

for path in sys.argv[1:]:
    said = {"parameters": {}, "metrics": [], "others": {}}
    with zipfile.ZipFile(path) as archive:
        experiment = json.loads(archive.read("experiment.json"))
        for line in archive.read("messages.json").splitlines():
            message = json.loads(line)
            kind, payload = message["type"], message["payload"]
            if kind == "parameter_msg" and payload["param"]["source"] == "manual":
                said["parameters"][payload["param"]["paramName"]] = payload["param"]["paramValue"]
            elif kind == "metric_msg":
                metric = payload["metric"]
                said["metrics"].append([metric["metricName"], metric["step"], metric["metricValue"]])
            elif kind == "log_other":
                said["others"][payload["key"]] = payload["value"]
    print(json.dumps({**said, "key": experiment["offline_id"], "tags": experiment["tags"]}))
