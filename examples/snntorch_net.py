"""A network of snnTorch that knows nothing of this project, made ready for its benchmark.

tdsnn-zoo bench examples.snntorch_net:network --data fashion_mnist --suite standard-v1
"""

import snntorch
from torch import nn

import tdsnn


def network():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        snntorch.Leaky(beta=0.9, init_hidden=True),
        nn.Flatten(),
        nn.Linear(8 * 12 * 12, 10),
        snntorch.Leaky(beta=0.9, init_hidden=True, output=True),  # returns spikes and potentials
    )  # load your weights here
    return tdsnn.adapt(net, time="loop", timesteps=8, output=1)
