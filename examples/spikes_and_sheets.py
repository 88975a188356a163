"""A model of the zoo: its answers step by step, and how order on its sheets compares with its twin's.

python examples/spikes_and_sheets.py
"""

import tdsnn
from tdsnn.data import load_split
from tdsnn.schema import Topography
from tdsnn.topography.alignment import measure_alignment

model, twin = tdsnn.load("tsresnet18"), tdsnn.load("sresnet18")
images, labels = load_split("fashion_mnist", "test").take(slice(0, 100))
for step, logits in enumerate(tdsnn.stream(model, images), start=1):
    print(f"after step {step}: {(logits.argmax(1) == labels).float().mean():.0%} right")

sheets = {layer: model.sheets[layer] for layer in ("layer2.0", "layer4.1")}  # positions in mm
for name, network in (("topographic", model), ("twin", twin)):
    found = measure_alignment(network, sheets, [images], topography=Topography(), timesteps=4)
    order = ", ".join(f"{layer} {value.mean:.2f}" for layer, value in found["rate"].items())
    print(f"similarity of firing against proximity, P(r, d), {name}: {order}")
