"""Figures of runs; each function reads run directories and returns a figure or a film.

Curves are means over seeds, with sample standard deviations; diagrams and histograms
show the first seed.

Reference: McGill and Perona (2017), figures 5 to 10.
"""

import functools

from multipath.trees.figures import diagrams, efficiency, films, histograms

FIGURES = {
    "acc-eff": efficiency.ACC_EFF,
    "nlds": diagrams.NLDS,
    "routing-hists": histograms.routing_histograms,
    "pres-figs": {
        **efficiency.PRESENTATION,
        "pres-11": histograms.routing_histograms,
    },
    "videos": films.VIDEOS,
    "nld-options": {
        "nld-accuracy": functools.partial(diagrams.chains, parts=("accuracy",)),
        "nld-classes": functools.partial(diagrams.chains, parts=("classes",)),
        "nld-tree-accuracy": functools.partial(diagrams.tree, part="accuracy"),
    },
}
"""Figures by name, or sets of figures by name; each takes run directories."""
