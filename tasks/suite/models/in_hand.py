"""What models of a hand with a cube share: the cube, its goal beside it, a camera, and who may touch whom."""

from __future__ import annotations

# Bits of contacts: the cube, the palm, and one for each of up to five fingers.
CUBE, PALM = 2, 4
_FINGERS = (8, 16, 32, 64, 128)
# Elliptic cones and a high ratio: a cube that rests on a slanting finger must not creep.
FRICTION = '<option cone="elliptic" impratio="10"/>'
_COLOURS = {
    "x": (".85 .22 .18", ".95 .62 .14"), "y": (".16 .55 .30", ".93 .86 .25"), "z": (".18 .38 .74", ".93 .93 .90")
}  # fmt: skip


def touches(finger: int, palm: bool = True) -> str:
    """Attributes of a geom of finger number `finger`: it meets the cube, the other fingers and, if asked, the palm."""
    others = sum(_FINGERS) - _FINGERS[finger]
    return f'contype="{_FINGERS[finger]}" conaffinity="{CUBE | PALM * palm | others}"'


def palm_touches() -> str:
    """Attributes of a geom of the palm, or of what is behind the fingers: it meets the cube."""
    return f'contype="{PALM}" conaffinity="{CUBE}"'


def _faces(side: float) -> str:
    """Plates of six colours, which show how the cube is turned."""
    flat, half, plates = 0.002, side / 2, []
    for axis, colours in _COLOURS.items():
        size = " ".join(str(flat if axis == name else 0.4 * side) for name in "xyz")
        for sign, colour in zip((1, -1), colours):
            place = " ".join(str(sign * (half - 0.6 * flat) if axis == name else 0) for name in "xyz")
            plate = f'type="box" size="{size}" pos="{place}" rgba="{colour} 1"'
            plates.append(f'<geom {plate} contype="0" conaffinity="0" mass="0"/>')
    return "".join(plates)


def cubes(side: float, density: float, pos: tuple[float, float, float], shown: tuple[float, float, float]) -> str:
    """MJCF of a free cube at `pos` (m) and of its goal, a mocap body at `shown` that nothing touches."""
    box = f'type="box" size="{side / 2} {side / 2} {side / 2}" material="dark"'
    at, there = (" ".join(map(str, place)) for place in (pos, shown))
    return f"""
    <body name="cube" pos="{at}">
      <freejoint name="cube"/>
      <geom name="cube" {box} density="{density}" contype="{CUBE}" conaffinity="0"/>{_faces(side)}
    </body>
    <body name="goal" mocap="true" pos="{there}">
      <geom {box} contype="0" conaffinity="0" mass="0"/>{_faces(side)}
    </body>"""


def camera(target: tuple[float, float, float]) -> str:
    """A camera over the fingertips that looks at `target` (m) and the goal beside it."""
    x, y, z = target
    return (
        f'<camera name="view" pos="{x - 0.1} {y - 0.45} {z + 0.4}" '
        'xyaxes="1 0 0 0 .70711 .70711" fovy="36"/>'
    )
