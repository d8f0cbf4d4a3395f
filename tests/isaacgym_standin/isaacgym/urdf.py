"""Robots from URDF files. Children are visited in the order of their joints' names, as the original does."""

import math

from isaacgym import rotations
from isaacgym.assets import Asset, Joint, volume


def read(path, options, root):
    asset = Asset(path, options)
    links = {link.get("name"): link for link in root.findall("link")}
    children = {}
    for joint in root.findall("joint"):
        children.setdefault(joint.find("parent").get("link"), []).append(joint)
    hung = {joint.find("child").get("link") for joint in root.findall("joint")}
    base = next(name for name in links if name not in hung)

    def visit(link, parent, pose, joint, merged):
        """`pose` is in the frame of body `parent`; a `merged` link is a part of it and no body of its own."""
        body = parent if merged else asset.add_body(link, parent, pose, link=joint.get("name") if joint else None)
        if joint is not None and not merged and joint.get("type") != "fixed":
            _joint(asset, body, joint)
        _mass(asset, asset.bodies[body], links[link], options.density)
        here = pose if merged else rotations.compose(_ZERO, _ZERO)
        for child in sorted(children.get(link, []), key=lambda j: j.get("name")):
            held = options.collapse_fixed_joints and child.get("type") == "fixed"
            visit(child.find("child").get("link"), body, rotations.compose(here, _origin(child)), child, held)

    visit(base, -1, _ZERO, None, merged=False)
    return asset.finish()


_ZERO = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def _origin(element):
    found = element.find("origin")
    if found is None:
        return _ZERO
    place = tuple(float(v) for v in found.get("xyz", "0 0 0").split())
    return place, rotations.from_rpy(*(float(v) for v in found.get("rpy", "0 0 0").split()))


def _joint(asset, body, joint):
    kind, limit, dynamics = joint.get("type"), joint.find("limit"), joint.find("dynamics")
    has = kind != "continuous" and limit is not None
    given = joint.find("axis")
    axis = tuple(float(v) for v in (given.get("xyz") if given is not None else "1 0 0").split())
    asset.add_joint(
        body,
        Joint(joint.get("name"), axis, sliding=kind == "prismatic"),
        float(limit.get("lower", "-inf")) if has else -math.inf,
        float(limit.get("upper", "inf")) if has else math.inf,
        velocity=float(limit.get("velocity", 1e6)) if limit is not None else 1e6,
        effort=float(limit.get("effort", 1e6)) if limit is not None else 1e6,
        damping=float(dynamics.get("damping", 0.0)) if dynamics is not None else 0.0,
    )


def _mass(asset, body, link, density):
    """Add a link's mass and shapes to its body's."""
    filled = 0.0
    for shape in link.findall("collision"):
        body.shapes += 1
        geometry = shape.find("geometry")
        kind, size = _shape(geometry)
        filled += volume(kind, size)
        if asset.half is None and body is asset.bodies[0] and kind in ("box", "sphere"):
            asset.half = size if kind == "box" else size * 3
    given = link.find("inertial/mass")
    body.mass += float(given.get("value")) if given is not None else density * filled


def _shape(geometry):
    """(kind, sizes as `assets.volume` takes them)."""
    if geometry is None or not len(geometry):
        return "none", ()
    shape = geometry[0]
    if shape.tag == "box":
        return "box", tuple(float(v) / 2 for v in shape.get("size").split())
    if shape.tag == "sphere":
        return "sphere", (float(shape.get("radius")),)
    if shape.tag in ("cylinder", "capsule"):
        return shape.tag, (float(shape.get("radius")), float(shape.get("length")) / 2)
    return shape.tag, ()
