"""Figures of runs; each function reads run directories and returns a figure.

Curves are means over seeds with a standard deviation each side; maps of modules show
the first seed, since modules of different seeds have nothing in common.

Reference: Rosenbaum, Klinger and Riemer (2018), section 5.
"""

from multipath.routing_networks.figures import curves, maps, routes, steps, sweeps

FIGURES = {
    "accuracy": curves.accuracy,
    "tasks": curves.tasks,
    "entropy": curves.entropy,
    "collapse": curves.collapse,
    "use": maps.use,
    "policies": maps.policies,
    "routes": routes.routes,
    "steps": steps.steps,
    "sweep": sweeps.sweep,
}
"""Figures by name; each takes run directories."""
