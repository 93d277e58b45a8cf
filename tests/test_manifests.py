"""The Kubernetes manifest, against the schema of JobSet and of Kubernetes' own objects."""

from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet
from pydantic import ValidationError

MANIFEST = Path(__file__).parent.parent / "docs" / "scaling" / "jobset.yaml"


def test_jobset():
    manifest = yaml.safe_load(MANIFEST.read_text())
    jobset = JobsetV1alpha2JobSet.from_dict(manifest)
    assert jobset is not None
    assert jobset.to_dict() == manifest  # which drops fields that the schema lacks
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["parallelism"] = "two"
    with pytest.raises(ValidationError, match="parallelism"):
        JobsetV1alpha2JobSet.from_dict(manifest)
