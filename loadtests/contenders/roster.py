"""Everybody who takes part, in the order of the tables."""

from contenders import flagrelay, floor, nchan, pushpin, python_apps

CONTENDERS = {
    each.name: each for module in (floor, flagrelay, nchan, pushpin, python_apps) for each in module.CONTENDERS
}
