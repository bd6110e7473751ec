"""What to do, in the words that findings carry."""

from __future__ import annotations

RESTART_APPLICATION = "Restart the application and look at its own logs first."
RESET_GPU = "Drain the node and reset the GPU (nvidia-smi --gpu-reset)."
RESTART_NODE = "Drain the node and restart the machine."
CONTACT_SUPPORT = "Collect nvidia-bug-report.sh and ask the vendor's support."
RESET_WHEN_IDLE = "Leave the job alone; reset the GPU when the node is idle."
RESET_THEN_SUPPORT = "Drain the node, reset the GPU; when it comes back, send the board in."
NVLINK_WORKFLOW = "Drain the node, reset its GPUs, then check the NVLink that the line names."
LOOK_UP = "Look the code up in NVIDIA's XID catalogue; it is not one this release knows."
INSPECT_HARDWARE = (
    "Drain the node and have the machine inspected: what it was asked to do no longer helps."
)
INSPECT_NODE = "Drain the node, then see what its health agent found and what it asks for."
SEND_IN = "Drain the node and send the board in."
COOL = (
    "Check the machine's fans, airflow and inlet temperature; drain it when the margin is used up."
)
"""What an operator does next, one sentence each."""
