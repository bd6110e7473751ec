"""A site's diagnostic Job: what is taken, what it becomes on a node, what its end means."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.errors import SettingsError
from app.operations.diagnostics import job_for, last_words, load_template, verdict_of

EXAMPLE = Path(__file__).parents[3] / "k8s" / "manifests" / "diagnostics" / "job.yaml"


def test_without_a_file_there_is_none() -> None:
    assert load_template(None) is None


def test_the_example_becomes_a_job_of_one_run_pinned_to_its_node() -> None:
    template = load_template(EXAMPLE)
    assert template is not None
    job = job_for(template, node="h100-a-r01-05", diagnostic_id="d1", author="ana")
    pod = job["spec"]["template"]["spec"]
    assert job["metadata"]["name"] == "pitwall-diagnostic-d1"
    assert (pod["nodeName"], pod["restartPolicy"]) == ("h100-a-r01-05", "Never")
    assert {"operator": "Exists"} in pod["tolerations"]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (0, 2700)
    assert pod["containers"][0]["terminationMessagePolicy"] == "FallbackToLogsOnError"
    again = job_for(template, node="n2", diagnostic_id="d2", author="bo")
    assert again["spec"]["template"]["spec"]["nodeName"] == "n2"
    assert "name" not in template["metadata"], "the template is left as it is"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "CronJob"}, "is no batch/v1 Job"),
        ({"metadata": {}}, "no metadata.namespace"),
        ({"spec": {"template": {"spec": {}}}}, "no container"),
        (
            {"spec": {"parallelism": 2, "template": {"spec": {"containers": [{"name": "a"}]}}}},
            "parallelism must be 1",
        ),
    ],
)
def test_what_is_no_such_job_is_one_sentence(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), **change}))
    with pytest.raises(SettingsError, match=said):
        load_template(path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n", ""])
def test_what_is_no_document_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"job\.yaml"):
        load_template(path)
    with pytest.raises(SettingsError, match="can't be read"):
        load_template(tmp_path / "none.yaml")


def test_a_jobs_end_is_told_with_its_reason_and_its_containers_last_words() -> None:
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
    assert verdict_of({"status": {"conditions": [late]}}) == (
        "failed",
        "DeadlineExceeded: too long",
    )
    assert verdict_of({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}) == (
        "passed",
        "",
    )
    assert verdict_of({"status": {"conditions": [{"type": "Complete", "status": "False"}]}}) is None
    assert verdict_of({}) is None
    ended = {
        "name": "dcgm",
        "state": {"terminated": {"exitCode": 3, "message": "GPU 2: \x00 fail\n"}},
    }
    assert last_words([{"status": {"containerStatuses": [ended]}}]) == "dcgm exit 3: GPU 2:  fail"
    assert last_words([{}]) == ""
