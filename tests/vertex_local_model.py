"""Google's own LocalModel on an image: ``vertex_local_model.py UPLOAD_MODEL IMAGE``, from a request to its answer.

The container is the one that the upload request describes, from an image of this machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from google.cloud import aiplatform_v1 as api
from google.cloud.aiplatform.prediction import LocalModel
from google.protobuf import json_format

request = json_format.ParseDict(json.loads(Path(sys.argv[1]).read_text()), api.UploadModelRequest.pb()())
spec = api.ModelContainerSpec.wrap(request.model.container_spec)
spec.image_uri = sys.argv[2]
with LocalModel(serving_container_spec=spec).deploy_to_local_endpoint(container_ready_timeout=180) as endpoint:
    assert endpoint.run_health_check().status_code == 200
    said = endpoint.predict(request=sys.stdin.read(), headers={"content-type": "application/json"})
    assert said.status_code == 200, said.text
    sys.stdout.write(said.text)
