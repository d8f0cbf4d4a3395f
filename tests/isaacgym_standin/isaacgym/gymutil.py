"""Shapes for a viewer, which is never opened, and the indentation of XML."""


class AxesGeometry:
    def __init__(self, scale=1.0, pose=None):
        self.scale = scale


class WireframeSphereGeometry:
    def __init__(self, radius=1.0, num_lats=8, num_lons=8, pose=None, color=None, color2=None):
        self.radius = radius


def draw_lines(geometry, gym, viewer, env, pose):
    raise RuntimeError("nothing is drawn without a viewer")


def _indent_xml(element, level=0):
    pass  # white space means nothing to a reader of XML
