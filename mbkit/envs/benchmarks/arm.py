"""The seven-joint arm of reacher and pusher: Gymnasium's `pusher_v5.xml`, with the position of its hand in closed form."""

import mujoco
import torch
from torch import Tensor

PATH = "pusher_v5.xml"
SHOULDER = -0.6  # m, y of the first joint; x and z are 0
OFFSET, UPPER, FORE = 0.1, 0.4, 0.321  # m, along x: pan axis to lift axis, to elbow, to wrist


def hand(qpos: Tensor, reach: float = 0.0) -> Tensor:
    """World position [..., 3] (m) of the point `reach` in front of the wrist, from joint angles [..., 7 or more] (rad).

    From the hand to the shoulder: rotate by each joint, then translate along the link that carries it; the last joint leaves the point.
    """
    pan, lift, roll, elbow, twist, wrist = qpos[..., :6].unbind(-1)
    x, y, z = reach + torch.zeros_like(pan), torch.zeros_like(pan), torch.zeros_like(pan)
    z, x = turn(wrist, z, x)
    y, z = turn(twist, y, z)
    z, x = turn(elbow, z, x + FORE)
    y, z = turn(roll, y, z)
    z, x = turn(lift, z, x + UPPER)
    x, y = turn(pan, x + OFFSET, y)
    return torch.stack([x, y + SHOULDER, z], -1)


def turn(angle: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates (a, b) rotated by `angle` from a towards b."""
    sin, cos = angle.sin(), angle.cos()
    return cos * a - sin * b, sin * a + cos * b


def dress(spec: mujoco.MjSpec) -> None:
    """Set colours, light and the camera `view` across the table, in place; the physics does not change."""
    for geom in spec.geoms:
        if geom.name not in ("table", "e1", "e2", "e1p", "e2p") and geom.parent.name not in ("object", "goal"):
            geom.rgba = [0.18, 0.40, 0.64, 1] if geom.parent.name != "r_wrist_roll_link" else [0.93, 0.56, 0.20, 1]
    spec.geom("table").rgba = [0.78, 0.80, 0.83, 1]
    sky = {"type": mujoco.mjtTexture.mjTEXTURE_SKYBOX, "builtin": mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, "width": 256, "height": 1536}
    spec.add_texture(name="sky", rgb1=[0.86, 0.91, 0.96], rgb2=[0.53, 0.66, 0.80], **sky)
    spec.body("object").geoms[0].rgba = [0.55, 0.30, 0.62, 1]
    spec.body("goal").geoms[0].rgba = [0.20, 0.75, 0.42, 1]
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.quality.shadowsize = 4096
    spec.worldbody.add_camera(name="view", pos=[0.4, 1.1, 1.05], xyaxes=[-1, 0, 0, 0, -0.57, 0.822], fovy=45)
