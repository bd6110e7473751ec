"""The Prometheus face: dcgm-exporter's series of every GPU, over the HTTP API of Prometheus.

Values follow from the state of the cluster now, also for a range in the past: the simulator keeps
no history of its sensors.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from app.simulator.api.request import Request, Response, json_response
from app.simulator.asgi import Application, application_of
from app.simulator.hosts import Gpu, Host
from app.simulator.promql import (
    Greatest,
    QueryInvalid,
    Selector,
    Timestamp,
    parse_query,
    parse_selector,
)
from app.simulator.simulation import Simulation
from app.simulator.telemetry import METRICS, moment_of

Labels = dict[str, str]
# What Prometheus gives for one series of a range query at most.
MOST_POINTS = 11_000
JOB = "dcgm-exporter"


class PrometheusFace:
    """Answers under /api/v1/."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._answers: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "/api/v1/query": self._query,
            "/api/v1/query_range": self._query_range,
            "/api/v1/series": self._series,
            "/api/v1/labels": self._labels,
            "/api/v1/metadata": self._metadata,
            "/api/v1/status/buildinfo": lambda _: {"version": "3.5.0", "revision": "simulator"},
        }

    def answer(self, request: Request, parameters: Mapping[str, Any]) -> Response:
        """Answer one request; what cannot be read is bad_data with status 400."""
        path = request.path.rstrip("/")
        if path in ("/-/ready", "/-/healthy"):
            return Response(200, b"Prometheus Server is Ready.\n", "text/plain; charset=utf-8")
        try:
            if path.startswith("/api/v1/label/") and path.endswith("/values"):
                name = path.removeprefix("/api/v1/label/").removesuffix("/values")
                return _success(self._label_values(name, parameters))
            if path not in self._answers:
                return _failure(404, "not_found", f"{path} is not served by the simulator")
            return _success(self._answers[path](parameters))
        except QueryInvalid as error:
            return _failure(400, "bad_data", str(error))

    def _now(self) -> float:
        return self._simulation.clock.now().timestamp()

    def _query(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        found = parse_query(_needed(parameters, "query"))
        at = _time(parameters.get("time"), self._now())
        if isinstance(found, float):
            return {"resultType": "scalar", "result": [at, _number(found)]}
        result = [
            {"metric": labels, "value": [at, _number(value(at))]}
            for labels, value in self._matching(found)
        ]
        return {"resultType": "vector", "result": result}

    def _query_range(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        found = parse_query(_needed(parameters, "query"))
        start = _time(_needed(parameters, "start"), 0.0)
        end = _time(_needed(parameters, "end"), 0.0)
        step = _duration(_needed(parameters, "step"))
        if end < start:
            raise QueryInvalid('invalid parameter "end": end timestamp must not be before start')
        if (end - start) / step > MOST_POINTS:
            raise QueryInvalid(
                f"exceeded maximum resolution of {MOST_POINTS:,} points per timeseries"
            )
        times = [start + step * number for number in range(int((end - start) / step) + 1)]
        if isinstance(found, float):
            values = [[at, _number(found)] for at in times]
            return {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}
        result = [
            {"metric": labels, "values": [[at, _number(value(at))] for at in times]}
            for labels, value in self._matching(found)
        ]
        return {"resultType": "matrix", "result": result}

    def _series(self, parameters: Mapping[str, Any]) -> list[Labels]:
        return [labels for labels, _ in self._selected(parameters, demanded=True)]

    def _labels(self, parameters: Mapping[str, Any]) -> list[str]:
        return sorted({name for labels, _ in self._selected(parameters) for name in labels})

    def _label_values(self, name: str, parameters: Mapping[str, Any]) -> list[str]:
        return sorted({labels[name] for labels, _ in self._selected(parameters) if name in labels})

    def _metadata(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {name: [{"type": "gauge", "help": name, "unit": ""}] for name in METRICS}

    def _selected(
        self, parameters: Mapping[str, Any], *, demanded: bool = False
    ) -> Iterator[tuple[Labels, Callable[[float], float]]]:
        texts = parameters.get("match[]") or []
        if demanded and not texts:
            raise QueryInvalid("no match[] parameter provided")
        selectors = [parse_selector(text) for text in texts]
        for labels, value in self._all(None):
            if not selectors or any(one.holds(labels) for one in selectors):
                yield labels, value

    def _matching(
        self, found: Selector | Timestamp | Greatest
    ) -> Iterator[tuple[Labels, Callable[[float], float]]]:
        if isinstance(found, Greatest):
            yield from self._greatest(found)
            return
        selector = found.of if isinstance(found, Timestamp) else found
        for labels, value in self._all(selector.name()):
            if not selector.holds(labels):
                continue
            if isinstance(found, Timestamp):
                # Its sensors are read as they are asked for.
                del labels["__name__"]
                yield labels, lambda at: at
            else:
                yield labels, value

    def _greatest(self, found: Greatest) -> Iterator[tuple[Labels, Callable[[float], float]]]:
        groups: dict[tuple[tuple[str, str], ...], list[Callable[[float], float]]] = {}
        for labels, value in self._matching(found.of):
            key = tuple((name, labels[name]) for name in found.by if labels.get(name))
            groups.setdefault(key, []).append(value)
        for key, values in groups.items():
            yield dict(key), _maximum(values)

    def _all(self, name: str | None) -> Iterator[tuple[Labels, Callable[[float], float]]]:
        """Every series, or those of one metric. A dead machine's exporter is down."""
        for host in self._simulation.hosts.by_name.values():
            if name in (None, "up"):
                labels = {"__name__": "up", "job": JOB, "instance": f"{host.name}:9400"}
                alive = float(not host.dead)
                yield labels, _constant(alive)
            if host.dead:
                continue
            for metric in METRICS if name is None else [name] if name in METRICS else []:
                for gpu in host.gpus:
                    if is_shown(metric, gpu):
                        yield _gpu_labels(metric, host, gpu), _reader(metric, gpu)


def is_shown(metric: str, gpu: Gpu) -> bool:
    """Whether the exporter has a series for this GPU: one that is lost keeps its last XID alone."""
    if "gone" in gpu.ailments:
        return False
    return not gpu.lost or (metric == "DCGM_FI_DEV_XID_ERRORS" and gpu.last_xid != 0)


def _maximum(values: list[Callable[[float], float]]) -> Callable[[float], float]:
    return lambda at: max(value(at) for value in values)


def _constant(value: float) -> Callable[[float], float]:
    return lambda _: value


def _reader(metric: str, gpu: Gpu) -> Callable[[float], float]:
    return lambda at: METRICS[metric](moment_of(gpu, at))


def _gpu_labels(metric: str, host: Host, gpu: Gpu) -> Labels:
    labels = {
        "__name__": metric,
        "gpu": str(gpu.index),
        "UUID": gpu.uuid,
        "pci_bus_id": gpu.pci_bus_id,
        "device": f"nvidia{gpu.index}",
        "modelName": "NVIDIA H100 80GB HBM3",
        "Hostname": host.name,
        "job": JOB,
        "instance": f"{host.name}:9400",
    }
    if gpu.pod is not None:
        labels |= {
            "exported_namespace": gpu.pod.namespace,
            "exported_pod": gpu.pod.name,
            "exported_container": "worker",
        }
    return labels


def _needed(parameters: Mapping[str, Any], name: str) -> str:
    if not parameters.get(name):
        raise QueryInvalid(f'invalid parameter "{name}": it is missing')
    return str(parameters[name])


def _time(text: object, fallback: float) -> float:
    if text in (None, ""):
        return fallback
    try:
        return float(str(text))
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError as error:
        raise QueryInvalid(f"cannot parse {text!r} to a valid timestamp") from error


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def _duration(text: str) -> float:
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit() and float(number) > 0:
            return float(number) * factor
    try:
        seconds = float(text)
    except ValueError as error:
        raise QueryInvalid(f"cannot parse {text!r} to a valid duration") from error
    if seconds <= 0:
        raise QueryInvalid("zero or negative query resolution step widths are not accepted")
    return seconds


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)


def _success(data: Any) -> Response:
    return json_response({"status": "success", "data": data})


def _failure(status: int, kind: str, message: str) -> Response:
    return json_response({"status": "error", "errorType": kind, "error": message}, status=status)


def parameters_of(request: Request, raw_query: str) -> dict[str, Any]:
    """Query and form parameters together; match[] is a list."""
    pairs = parse_qsl(raw_query, keep_blank_values=True)
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        pairs += parse_qsl(request.body.decode(), keep_blank_values=True)
    found: dict[str, Any] = {"match[]": []}
    for name, value in pairs:
        if name == "match[]":
            found["match[]"].append(value)
        else:
            found[name] = value
    return found


def prometheus_application(simulation: Simulation) -> Application:
    """The Prometheus face as an ASGI application."""
    face = PrometheusFace(simulation)

    async def answer(request: Request, raw_query: str) -> Response:
        return face.answer(request, parameters_of(request, raw_query))

    return application_of(answer)
