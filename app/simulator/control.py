"""The control face: what the demo's agents learn of the machines, and how faults are made."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import msgspec

from app.simulator.api.request import Request, Response, json_response
from app.simulator.asgi import Application, application_of
from app.simulator.errors import FaultRefused, SimulatorError
from app.simulator.faults import XidEvent
from app.simulator.hosts import Gpu, Host
from app.simulator.simulation import Simulation

# The longest that a question for news waits for some.
POLL_SECONDS = 1.0
Answer = Callable[[Request], Awaitable[Response]]


class ControlFace:
    """Answers under /simulator/."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._news = asyncio.Event()
        simulation.hosts.on_change.append(self._tell)
        simulation.faults.on_xid.append(self._tell)
        self._answers: dict[tuple[str, str], Answer] = {
            ("GET", "/simulator/gpus"): self._read_gpus,
            ("GET", "/simulator/xids"): self._read_xids,
            ("GET", "/simulator/faults"): self._read_faults,
            ("POST", "/simulator/faults"): self._make_fault,
            ("DELETE", "/simulator/faults"): self._repair,
            ("GET", "/simulator/jobs"): self._read_jobs,
            ("POST", "/simulator/kubernetes-faults"): self._disturb,
            ("GET", "/simulator/kubernetes-faults"): self._read_disturbances,
            ("DELETE", "/simulator/kubernetes-faults"): self._calm,
            ("POST", "/simulator/compact"): self._compact,
            ("POST", "/simulator/close-watches"): self._close_watches,
        }

    def _tell(self) -> None:
        self._news.set()

    async def answer(self, request: Request) -> Response:
        """Answer one request; refusals carry one sentence under "error"."""
        path = request.path.rstrip("/")
        answer = self._answers.get((request.method, path))
        try:
            if answer is None:
                known = sorted({where for _, where in self._answers})
                status = 405 if path in known else 404
                text = f"{request.method} {path} is not served; there are {', '.join(known)}."
                return json_response({"error": text}, status=status)
            return await answer(request)
        except FaultRefused as error:
            return json_response({"error": str(error)}, status=422)
        except SimulatorError as error:
            return json_response({"error": str(error)}, status=400)

    async def _wait_for_news(self, is_news: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + POLL_SECONDS
        while not is_news() and (left := ends_at - loop.time()) > 0:
            self._news.clear()
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                return

    async def _read_gpus(self, request: Request) -> Response:
        hosts = self._simulation.hosts
        after = _whole(request, "after")
        if after:
            await self._wait_for_news(lambda: hosts.version != after)
        nodes = {host.name: _host_view(host) for host in hosts.changed_since(after)}
        return json_response({"version": hosts.version, "nodes": nodes})

    async def _read_xids(self, request: Request) -> Response:
        faults = self._simulation.faults
        after = _whole(request, "after")
        if after > faults.last_sequence:
            after = 0  # the number of an earlier simulator
        await self._wait_for_news(lambda: faults.last_sequence > after)
        events = [_xid_view(event) for event in faults.xids if event.sequence > after]
        return json_response({"last": faults.last_sequence, "events": events})

    async def _read_faults(self, _: Request) -> Response:
        return json_response({"faults": self._simulation.faults.active()})

    async def _make_fault(self, request: Request) -> Response:
        asked = _body(request)
        node, kind, gpu = asked.get("node"), asked.get("kind"), asked.get("gpu")
        if not isinstance(node, str) or not isinstance(kind, str):
            raise FaultRefused('A fault needs "node" and "kind".')
        if gpu is not None and (not isinstance(gpu, int) or isinstance(gpu, bool)):
            raise FaultRefused(f'"gpu" is a number from 0 to 7, not {gpu!r}.')
        return json_response(self._simulation.faults.inject(node, kind, gpu), status=201)

    async def _repair(self, request: Request) -> Response:
        node = request.query.get("node", "")
        if not node:
            raise FaultRefused("Say which node to repair: ?node=NAME.")
        self._simulation.faults.repair(node)
        return json_response({"node": node, "repaired": True})

    async def _read_jobs(self, _: Request) -> Response:
        training = self._simulation.training
        return json_response({"jobs": training.summary() if training else []})

    async def _disturb(self, request: Request) -> Response:
        one = self._simulation.api.switchboard.add(_body(request))
        return json_response(vars(one), status=201)

    async def _read_disturbances(self, _: Request) -> Response:
        active = [vars(one) for one in self._simulation.api.switchboard.active]
        return json_response({"kubernetes_faults": active})

    async def _calm(self, _: Request) -> Response:
        self._simulation.api.switchboard.clear()
        return json_response({"kubernetes_faults": []})

    async def _compact(self, _: Request) -> Response:
        return json_response({"revision": self._simulation.store.compact()})

    async def _close_watches(self, _: Request) -> Response:
        watches = tuple(self._simulation.api.watches)
        for watch in watches:
            watch.close()
        return json_response({"closed": len(watches)})


def _whole(request: Request, name: str) -> int:
    text = request.query.get(name, "0") or "0"
    try:
        return max(0, int(text))
    except ValueError as error:
        raise FaultRefused(f"{name} is a whole number, not {text!r}.") from error


def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request, whatever its content type says: people use curl -d."""
    try:
        found = msgspec.json.decode(request.body)
    except msgspec.DecodeError as error:
        raise FaultRefused(f"The body is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise FaultRefused("The body is not a JSON object.")
    return found


def _gpu_view(gpu: Gpu) -> dict[str, Any]:
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "serial": gpu.serial,
        "pci_bus_id": gpu.pci_bus_id,
        "pod_uid": gpu.pod.uid if gpu.pod else None,
        "pod_namespace": gpu.pod.namespace if gpu.pod else None,
        "pod_name": gpu.pod.name if gpu.pod else None,
        "pid": gpu.pid,
        "activity_ratio": gpu.activity_ratio,
        "power_ratio": gpu.power_ratio,
        "lost": gpu.lost,
        "ecc_uncorrectable_total": gpu.ecc_uncorrectable_total,
        "remap_pending": gpu.remap_pending,
        "remap_failure": gpu.remap_failure,
        "recovery_action": gpu.recovery_action,
        "ailments": gpu.ailments,
    }


def _host_view(host: Host) -> dict[str, Any]:
    return {
        "boot_id": host.boot_id,
        "dead": host.dead,
        "nvml_hang": host.nvml_hang,
        "ailments": host.ailments,
        "gpus": [_gpu_view(gpu) for gpu in host.gpus],
    }


def _xid_view(event: XidEvent) -> dict[str, Any]:
    return {
        "sequence": event.sequence,
        "at": _time(event.at),
        "node": event.node,
        "gpu_uuid": event.gpu_uuid,
        "pci_bus_id": event.pci_bus_id,
        "xid": event.xid,
        "text": event.text,
    }


def _time(moment: datetime) -> str:
    return moment.isoformat()


def control_application(simulation: Simulation) -> Application:
    """The control face as an ASGI application."""
    face = ControlFace(simulation)

    async def answer(request: Request, raw_query: str) -> Response:
        return await face.answer(request)

    return application_of(answer)
