"""The toy physics: enough for robots to stand, fall, fly and touch, and exact for a cart and its pole.

Everything is a batch over environments: `root` (E, 13), `q` and `qd` (E, dofs).
"""

import torch

from isaacgym.torch_utils import normalize

GRAVITY = 9.81


def cartpole(q, qd, force, dt):
    """Cart (1 kg) along y, pole (1 kg, centre .47 m above the hinge) about x: one semi-implicit Euler step."""
    mass, pole, length = 1.0, 1.0, 0.47
    inertia = pole * (1.0**2 + 0.06**2) / 12 + pole * length**2
    sin, cos = q[:, 1].sin(), q[:, 1].cos()
    coupling = pole * length * cos
    push = force[:, 0] - pole * length * sin * qd[:, 1] ** 2
    torque = pole * GRAVITY * length * sin
    determinant = (mass + pole) * inertia - coupling**2
    cart = (inertia * push + coupling * torque) / determinant
    angle = ((mass + pole) * torque + coupling * push) / determinant
    qd[:, 0] += dt * cart
    qd[:, 1] = (qd[:, 1] + dt * angle).clamp(-8.0, 8.0)
    q += dt * qd
    stopped = q[:, 0].abs() > 4.0
    q[:, 0] = q[:, 0].clamp(-4.0, 4.0)
    qd[:, 0] = torch.where(stopped, torch.zeros_like(qd[:, 0]), qd[:, 0])


class Joints:
    """Each joint is a damped inertia of its own; motors and drives move it. Properties are (E, dofs)."""

    inertia, damping = 0.3, 1.0

    def __init__(self, props, device):
        kinds = {name: torch.tensor(props[name].copy(), device=device) for name in props.dtype.names}
        self.lower, self.upper, self.effort = kinds["lower"], kinds["upper"], kinds["effort"]
        self.driven = kinds["driveMode"] == 1
        self.kp = kinds["stiffness"] * self.driven
        self.kd = kinds["damping"] * self.driven + self.damping

    def step(self, q, qd, force, target, dt):
        """Returns what the motors and drives did, (E, dofs)."""
        drive = torch.where(self.driven, self.kp * (target - q), force)
        drive = torch.max(torch.min(drive, self.effort), -self.effort)
        qd += dt / self.inertia * drive
        qd /= 1 + dt / self.inertia * (self.kd + dt * self.kp)
        q += dt * qd
        stopped = (q < self.lower) | (q > self.upper)
        q.copy_(torch.max(torch.min(q, self.upper), self.lower))
        qd.masked_fill_(stopped, 0.0)
        return drive


def legs(root, q, qd, start, height, ground, gravity, dt):
    """A base on legs that are longest where its joints are as an episode began; joint speeds push it about.

    It stands on a spring whose length shrinks with the joints' mean deviation: so a robot that thrashes about falls.
    `ground` (E,) is the height of the floor. Returns what the feet and the low-hanging base feel of it, (E,) each.
    """
    stiff, damper = 600.0, 30.0
    zero = torch.zeros(len(q), device=q.device)
    above = root[:, 2] - ground
    crouch = ((q - start).abs() / 1.2).clamp(max=1.0).mean(1)
    length = height * (1.1 - crouch)
    feet = torch.where(above < length, stiff * (length - above) - damper * root[:, 9], zero)
    feet = feet.clamp(min=0.0)
    floor = 0.5 * height
    base = (stiff * (floor - above) - damper * root[:, 9]).clamp(min=0.0) * (above < floor)
    touch = (stiff * (0.86 * height - above)).clamp(min=0.0)
    push = torch.stack((qd[:, 0::2].mean(1), qd[:, 1::2].mean(1), feet + base + gravity), dim=1)
    root[:, 7:9] *= 1 - dt
    root[:, 7:10] += dt * push
    root[:, 0:3] += dt * root[:, 7:10]
    root[:, 10:13] = root[:, 10:13] * (1 - 4 * dt) + dt * torch.stack(
        (qd[:, 0::3].mean(1), qd[:, 1::3].mean(1), qd.mean(1)), dim=1
    )
    turn(root, dt)
    return feet, touch


def fly(root, force, torque, mass, gravity, dt):
    """One rigid body in the air. `force`, `torque` (E, 3) in the world, about its origin; `mass` (E,)."""
    inertia = 0.01 * mass[:, None]
    root[:, 7:10] += dt * force / mass[:, None]
    root[:, 9] += dt * gravity
    root[:, 0:3] += dt * root[:, 7:10]
    root[:, 10:13] = (root[:, 10:13] + dt * torque / inertia).clamp(-4 * torch.pi, 4 * torch.pi)
    turn(root, dt)


def turn(root, dt):
    """Integrate orientations x, y, z, w by world angular velocities."""
    v, s, w = root[:, 3:6].clone(), root[:, 6:7].clone(), root[:, 10:13]
    root[:, 3:6] += 0.5 * dt * (s * w + torch.cross(w, v, dim=1))
    root[:, 6:7] -= 0.5 * dt * (w * v).sum(1, keepdim=True)
    root[:, 3:7] = normalize(root[:, 3:7])


def ball(root, radius, tray_height, dt):
    """A ball that falls, bounces on a tray of radius .5 and rolls off it. Returns the tray's push, (E,)."""
    root[:, 9] -= dt * GRAVITY
    root[:, 0:3] += dt * root[:, 7:10]
    above = root[:, 0:2].norm(dim=1) < 0.5
    level = radius + tray_height * (above & (root[:, 2] > 0.5 * tray_height))
    hit = root[:, 2] < level
    root[:, 2] = torch.max(root[:, 2], level)
    speed = root[:, 9]
    bounced = torch.where(hit & (speed < 0), -0.5 * speed, speed)
    push = (bounced - speed) / dt
    root[:, 9] = bounced
    return push * above


def loose(root, shelf, push, gravity, dt):
    """A body that lies on whatever is below it and is shoved about there.

    Args:
        shelf: height at which its origin rests, (E,).
        push: horizontal acceleration while it lies, (E, 2): what the joints' speeds make of a hand or an arm.

    Returns:
        Upward force per mass that holds it, (E,).
    """
    root[:, 9] += dt * gravity
    resting = root[:, 2] + dt * root[:, 9] <= shelf
    held = torch.where(resting, -root[:, 9] / dt, torch.zeros_like(shelf)).clamp(min=0.0)
    root[:, 9] = torch.where(resting, root[:, 9].clamp(min=0.0), root[:, 9])
    root[:, 7:9] = root[:, 7:9] * (1 - dt) + dt * push * resting[:, None]
    root[:, 0:3] += dt * root[:, 7:10]
    root[:, 2] = torch.where(resting, torch.max(root[:, 2], torch.min(shelf, root[:, 2] + dt)), root[:, 2])
    turn(root, dt)
    return held
