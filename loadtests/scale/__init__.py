"""A model of scale: what is measured here, what follows for more streams than fit here, and how far that is right.

constants     what was measured, as the model takes it
assumptions   what was not measured: networks, traffic, the balancer
fleet         how SDKs are spread over relays
propagation   how long a change takes to each SDK
herd          how SDKs come back after relays were lost
capacity      bytes, memory, Redis
scenarios     all of it, for fleets of several sizes

These are pure. What touches the machine: `lab` and `sdks` (processes and sockets), `measure` (the constants), `check`
(the model beside a measured run). What people read: `report`, `plots`, `document`.
"""
