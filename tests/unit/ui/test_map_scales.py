"""The map's colours: a scale's order is told by lightness, and kinds by each form of colour blindness."""

import itertools

import numpy
import pytest
from numpy.typing import NDArray

from app.ui import theme

Rgb = NDArray[numpy.float64]

# OKLab, B. Ottosson 2020, https://bottosson.github.io/posts/oklab/.
_TO_CONES = numpy.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_TO_LAB = numpy.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
# Machado, Oliveira and Fernandes 2009, severity 1, on linear sRGB.
_BLINDNESS = {
    "none": numpy.eye(3),
    "protan": numpy.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": numpy.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritan": numpy.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
TOLD_APART = 0.12
"""Distance in OKLab; neighbours of the worst common palette of eight have 0.02."""

both = pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
seen_by = pytest.mark.parametrize("eye", _BLINDNESS)


@both
@seen_by
def test_a_scale_goes_one_way_in_lightness(palette: theme.Palette, eye: str) -> None:
    lightness = [_lab(color, eye)[0] for color in palette.scale]
    steps = numpy.diff(lightness)
    assert numpy.all(steps < -0.02) or numpy.all(steps > 0.02)


@both
@seen_by
def test_kinds_are_told_apart(palette: theme.Palette, eye: str) -> None:
    pairs = itertools.combinations(palette.kinds, 2)
    nearest = min(pairs, key=lambda pair: _distance(*pair, eye))
    assert _distance(*nearest, eye) >= TOLD_APART, nearest


@both
def test_no_kind_and_no_step_is_near_the_red_that_calls_a_person(palette: theme.Palette) -> None:
    for color in (*palette.kinds, *palette.scale):
        assert _distance(color, palette.act[0], "none") >= TOLD_APART, color


def _distance(one: str, other: str, eye: str) -> float:
    return float(numpy.linalg.norm(_lab(one, eye) - _lab(other, eye)))


def _lab(color: str, eye: str) -> Rgb:
    parts = numpy.array([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = numpy.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    seen = numpy.clip(_BLINDNESS[eye] @ linear, 0, 1)
    return numpy.asarray(_TO_LAB @ numpy.cbrt(_TO_CONES @ seen))
