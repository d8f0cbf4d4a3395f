#!/usr/bin/env bash
# mujoco-warp 4.0.0 on mujoco 4.0.0 and warp-lang 1.19.0, on a CPU; no GPU is needed.
#
# put_model(model, batch_sizes={"geom_pos": n}) gives each world its own geom_pos, and for a geom of the world body, or of
# one welded to it, accepts it and reads it back. But kinematics leaves the place of such a geom alone: it is computed
# once, by make_data, from the model. So per-world targets, cups or obstacles stay, for observations and for contacts,
# where the file has them; likewise where body_pos of a welded body differs. Sites of the same body do move.
#
# Output seen (worlds 0 and 1, x of geom_pos 1 and 2, in the file 0):
#   geom of the world: geom_pos [1.0, 2.0], geom_xpos after kinematics [0.0, 0.0]
#   site of the world: site_pos [1.0, 2.0], site_xpos after kinematics [1.0, 2.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mujoco==4.0.0 mujoco-warp==4.0.0 warp-lang==1.19.0
"$folder/venv/bin/python" - <<'EOF'
import sys

import mujoco
import mujoco_warp as mjw

model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><geom size=".1"/><site name="s"/><body pos="0 0 1"><freejoint/><geom size=".1"/></body>'
    "</worldbody></mujoco>"
)
data = mjw.make_data(model, 2)
worlds = mjw.put_model(model, batch_sizes={"geom_pos": 2, "site_pos": 2})
seen = []
for kind in ("geom", "site"):
    own = getattr(worlds, f"{kind}_pos")
    values = own.numpy()
    values[:, 0] = [[1, 0, 0], [2, 0, 0]]
    own.assign(values)
mjw.kinematics(worlds, data)
for kind in ("geom", "site"):
    asked = getattr(worlds, f"{kind}_pos").numpy()[:, 0, 0].tolist()
    found = getattr(data, f"{kind}_xpos").numpy()[:, 0, 0].tolist()
    print(f"{kind} of the world: {kind}_pos {asked}, {kind}_xpos after kinematics {found}")
    seen.append((asked, found))
sys.exit(seen != [([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [1.0, 2.0])])
EOF
