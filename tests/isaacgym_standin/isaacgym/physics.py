"""The toy physics: enough for robots to stand, fall and touch, and exact for a cart and its pole.

Everything is a batch over environments: `root` (E, 13), `q` and `qd` (E, dofs).
"""

import torch

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


class Robot:
    """A floating base on legs that are longest where its joints are as an episode began.

    Each joint is a damped inertia of its own; motors and drives move it. The base stands on a spring whose length
    shrinks with the joints' mean deviation: so a robot that thrashes about falls. Joint speeds push it about.
    """

    inertia, damping, stiff, damper = 0.3, 1.0, 600.0, 30.0

    def __init__(self, height, props, like):
        self.height = height
        kinds = {name: torch.tensor(props[name].copy(), device=like.device) for name in props.dtype.names}
        self.lower, self.upper, self.effort = kinds["lower"], kinds["upper"], kinds["effort"]
        self.driven = kinds["driveMode"] == 1
        self.kp = kinds["stiffness"] * self.driven
        self.kd = kinds["damping"] * self.driven + self.damping

    def step(self, root, q, qd, start, force, target, dt, held):
        """Returns joint forces (E, dofs), and what the feet and the low-hanging base feel of the ground, (E,) each."""
        drive = torch.where(self.driven, self.kp * (target - q), force).clamp(-self.effort, self.effort)
        qd += dt / self.inertia * drive
        qd /= 1 + dt / self.inertia * (self.kd + dt * self.kp)
        q += dt * qd
        stopped = (q < self.lower) | (q > self.upper)
        q.copy_(torch.max(torch.min(q, self.upper), self.lower))
        qd.masked_fill_(stopped, 0.0)
        zero = torch.zeros(len(q), device=q.device)
        if held:
            return drive, zero, zero
        crouch = ((q - start).abs() / 1.2).clamp(max=1.0).mean(1)
        legs = self.height * (1.1 - crouch)
        feet = torch.where(root[:, 2] < legs, self.stiff * (legs - root[:, 2]) - self.damper * root[:, 9], zero)
        feet = feet.clamp(min=0.0)
        floor = 0.5 * self.height
        base = (self.stiff * (floor - root[:, 2]) - self.damper * root[:, 9]).clamp(min=0.0) * (root[:, 2] < floor)
        touch = (self.stiff * (0.86 * self.height - root[:, 2])).clamp(min=0.0)
        push = torch.stack((qd[:, 0::2].mean(1), qd[:, 1::2].mean(1), feet + base - GRAVITY), dim=1)
        root[:, 7:9] *= 1 - dt
        root[:, 7:10] += dt * push
        root[:, 0:3] += dt * root[:, 7:10]
        root[:, 10:13] = root[:, 10:13] * (1 - 4 * dt) + dt * torch.stack(
            (qd[:, 0::3].mean(1), qd[:, 1::3].mean(1), qd.mean(1)), dim=1
        )
        turn(root, dt)
        return drive, feet, touch


def turn(root, dt):
    """Integrate orientations x, y, z, w by world angular velocities."""
    v, s, w = root[:, 3:6].clone(), root[:, 6:7].clone(), root[:, 10:13]
    root[:, 3:6] += 0.5 * dt * (s * w + torch.cross(w, v, dim=1))
    root[:, 6:7] -= 0.5 * dt * (w * v).sum(1, keepdim=True)
    root[:, 3:7] /= root[:, 3:7].norm(dim=1, keepdim=True)


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


