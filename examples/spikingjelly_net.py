"""A network of SpikingJelly that knows nothing of this project, made ready for its benchmark.

tdsnn-zoo bench examples.spikingjelly_net:network --data cifar10 --suite standard-v1
"""

from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import spiking_resnet

import tdsnn


def network():
    net = spiking_resnet.spiking_resnet18(
        spiking_neuron=neuron.LIFNode, surrogate_function=surrogate.ATan(), detach_reset=True, num_classes=10
    )
    functional.set_step_mode(net, "m")  # load your weights here
    return tdsnn.adapt(
        net, time="sequence", timesteps=4, mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262)
    )
