"""Whether the GPUs of what came back are at work: Ready says only that containers have started. Pure."""

from datetime import datetime, timedelta

from app.operations.model import RESTARTING, RETURNED, Observed, Unit
from k8s.objects import Pod, condition, gpu_request, is_pod_ready, is_terminating

WAIT_SECONDS = 60.0
"""How long idle GPUs are waited for once every rank is Ready. An agent reports each 15 s, and a rank reads
its checkpoint first; a job that takes longer is Returned all the same, and the message says so. A judgement."""


def judge_activity(
    uid: str, unit: Unit, said: str, *, observed: Observed, now: datetime
) -> tuple[str, str]:
    """The verdict on a workload that is back by Kubernetes' account; `said` is what that says.

    A node whose agent is not heard can't tell: it is not waited for, and the message says unknown.
    """
    pods = [
        pod
        for pod in observed.view.pods_of(uid)
        if pod.metadata.uid not in unit.moved
        and gpu_request(pod) > 0
        and is_pod_ready(pod)
        and not is_terminating(pod.metadata)
    ]
    heard = [pod for pod in pods if observed.health_of(pod.spec.node_name)[0] != "Unknown"]
    if not pods:
        return RETURNED, said
    if not heard:
        return RETURNED, f"{said} Whether its GPUs work is unknown: no agent is heard there."
    idle = [pod for pod in heard if not observed.activity.get(pod.metadata.uid)]
    if not idle:
        return RETURNED, f"{said} Its GPUs are at work."
    which = f"{len(idle)} of {len(pods)} pods, {idle[0].metadata.name} among them"
    if now < max(_ready_at(pod, now) for pod in pods) + timedelta(seconds=WAIT_SECONDS):
        return RESTARTING, f"{said} Waiting for GPU activity of {which}."
    return (
        RETURNED,
        f"{said} No GPU activity of {which}, was seen within {WAIT_SECONDS:.0f} s: look at the job.",
    )


def _ready_at(pod: Pod, now: datetime) -> datetime:
    ready = condition(pod.status.conditions, "Ready")
    at = ready.last_transition_time if ready is not None else None
    return min(at or pod.status.start_time or pod.metadata.creation_timestamp or now, now)
