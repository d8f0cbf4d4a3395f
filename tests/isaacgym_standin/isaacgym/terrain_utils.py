"""Rough ground as a field of heights, in whole multiples of its vertical scale, and as triangles."""

import numpy as np


class SubTerrain:
    """`height_field_raw` (width, length) int16: a square of ground; scales in metres."""

    def __init__(self, terrain_name="terrain", width=256, length=256, vertical_scale=1.0, horizontal_scale=1.0):
        self.terrain_name, self.width, self.length = terrain_name, width, length
        self.vertical_scale, self.horizontal_scale = vertical_scale, horizontal_scale
        self.height_field_raw = np.zeros((width, length), dtype=np.int16)


def _distance(terrain):
    """From the middle, in the larger of both directions, in cells."""
    x, y = np.arange(terrain.width) - terrain.width // 2, np.arange(terrain.length) - terrain.length // 2
    return np.maximum(np.abs(x)[:, None], np.abs(y)[None, :])


def pyramid_sloped_terrain(terrain, slope=1, platform_size=1.0):
    """A pyramid of constant slope (rise over run; down for negative) with a flat top."""
    run = (terrain.width // 2 - _distance(terrain)) * terrain.horizontal_scale
    top = terrain.width // 2 * terrain.horizontal_scale - platform_size / 2
    terrain.height_field_raw += (slope * np.minimum(run, top) / terrain.vertical_scale).astype(np.int16)
    return terrain


def pyramid_stairs_terrain(terrain, step_width, step_height, platform_size=1.0):
    """Stairs up (down for negative heights) from all sides to a flat middle; sizes in metres."""
    edge = (terrain.width // 2 - _distance(terrain)) * terrain.horizontal_scale
    top = terrain.width // 2 * terrain.horizontal_scale - platform_size / 2
    steps = np.floor(np.minimum(edge, top) / step_width)
    terrain.height_field_raw += (steps * step_height / terrain.vertical_scale).astype(np.int16)
    return terrain


def random_uniform_terrain(terrain, min_height, max_height, step=1, downsampled_scale=None):
    """Heights drawn from min, min + step, ..., max; each holds for a square of `downsampled_scale` metres."""
    cells = max(1, int((downsampled_scale or terrain.horizontal_scale) / terrain.horizontal_scale))
    shape = (-(-terrain.width // cells), -(-terrain.length // cells))
    drawn = np.random.choice(np.arange(min_height, max_height + step, step), shape)  # noqa: NPY002 (as the original)
    rough = np.kron(drawn, np.ones((cells, cells)))[: terrain.width, : terrain.length]
    terrain.height_field_raw += (rough / terrain.vertical_scale).astype(np.int16)
    return terrain


def discrete_obstacles_terrain(terrain, max_height, min_size, max_size, num_rects, platform_size=1.0):
    """Rectangles of random size up to `max_height` high or deep, none on the middle."""
    low, high = (max(1, int(size / terrain.horizontal_scale)) for size in (min_size, max_size))
    height = int(max_height / terrain.vertical_scale)
    for _ in range(num_rects):
        w, d = np.random.randint(low, high + 1, 2)  # noqa: NPY002
        x = np.random.randint(0, max(1, terrain.width - w))  # noqa: NPY002
        y = np.random.randint(0, max(1, terrain.length - d))  # noqa: NPY002
        level = np.random.choice([-height, -height // 2, height // 2, height])  # noqa: NPY002
        terrain.height_field_raw[x : x + w, y : y + d] = level
    terrain.height_field_raw[_distance(terrain) * terrain.horizontal_scale <= platform_size / 2] = 0
    return terrain


def convert_heightfield_to_trimesh(height_field_raw, horizontal_scale, vertical_scale, slope_threshold=None):
    """(vertices (V, 3) float32, triangles (T, 3) uint32); here no slope is made a wall, whatever the threshold."""
    rows, cols = height_field_raw.shape
    x, y = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    vertices = np.stack((x * horizontal_scale, y * horizontal_scale, height_field_raw * vertical_scale), axis=2)
    corner = (np.arange(rows - 1)[:, None] * cols + np.arange(cols - 1)[None, :]).ravel()
    lower = np.stack((corner, corner + cols + 1, corner + 1), axis=1)
    upper = np.stack((corner, corner + cols, corner + cols + 1), axis=1)
    triangles = np.concatenate((lower, upper)).astype(np.uint32)
    return vertices.reshape(-1, 3).astype(np.float32), triangles
